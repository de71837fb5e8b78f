"""Suite `whole`: times a whole request at ConsisID-preview's size on a GPU, every stage's weights resident."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Annotated

import typer

from consisid_benchmarks.suites.gpu import ceilings, require_gpu
from consisid_measurement.commands import Json, MachineName, Out, results_folder, run_suite

if TYPE_CHECKING:
    from consisid_benchmarks.fake_gpu.full_size import FullSize
    from consisid_benchmarks.fake_gpu.stages import MakeInput
    from consisid_benchmarks.gpu_run.stopwatch import Gauge, Lap
    from consisid_measurement.record import Row

SUITE = "whole"
GATE = "tests/kernels/test_engine.py"
PACKAGES = ("consisid-runtime", "torch", "triton", "numpy")
STEPS = 50
_BLOCK = 10
"""Steps are run in such multiples, so that a part of them has its share of the first steps of a block."""
_FIRST, _OTHERS, _LAST = "denoise/first-step", "denoise/other-steps", "denoise/step"


def command(
    seconds: Annotated[
        float, typer.Option("--seconds", min=1, help="Run fewer than 50 steps where these would take longer.")
    ] = 120,
    machine: MachineName = None,
    out: Out = None,
    as_json: Json = False,
) -> None:
    """Time a whole request at ConsisID-preview's size with random weights made on the device. Needs a GPU."""
    require_gpu(SUITE)
    from consisid_benchmarks.gpu_run import full_size, stopwatch
    from consisid_benchmarks.gpu_run.width_check import require_same_step

    results = results_folder(out)

    def rows() -> list[Row]:
        require_same_step("cuda")
        return measure(full_size.bundle("cuda"), full_size.inputs("cuda"), stopwatch.cuda(), seconds)

    run_suite(
        SUITE, GATE, rows, packages=PACKAGES, machine=machine, results=results, as_json=as_json, ceilings=ceilings
    )


def measure(bundle: FullSize, given: MakeInput, gauge: Gauge, seconds: float) -> list[Row]:
    """One request after one of three steps, which loads and warms up; insightface's networks and the MP4 are left out.

    "total_seconds" is measured, and "energy_joules" of the GPU where nvidia-ml-py can read it. Where 50 steps would
    take more than `seconds`, the case says how many were run, "extrapolated_seconds" takes the others to be as long as
    these, and there is no energy.
    """
    from consisid_benchmarks.fake_gpu.stages import STEPS as WARM_UP
    from consisid_measurement.harness import summarise

    warm = _run(bundle, given, gauge, WARM_UP)
    each = next(lap.seconds for lap in warm if lap.stage == _LAST)
    fit = int((seconds - _seconds(warm, lambda stage: not _steps(stage))) / each)
    steps = max(_BLOCK, min(STEPS, fit - fit % _BLOCK))
    laps = _run(bundle, given, gauge, steps)
    denoising, rest = _seconds(laps, _steps), _seconds(laps, lambda stage: not _steps(stage))
    case = "request/50-steps" if steps == STEPS else f"request/{steps}-of-50-steps"
    metric = "total_seconds" if steps == STEPS else "extrapolated_seconds"
    found = {metric: rest + denoising * STEPS / steps, "peak_bytes": max(lap.peak_bytes for lap in laps)}
    used = [lap.joules for lap in laps if lap.joules is not None]
    if used and steps == STEPS:
        found["energy_joules"] = sum(used)
    return [summarise(case, "ours", name, [value]) for name, value in found.items()]


def _run(bundle: FullSize, given: MakeInput, gauge: Gauge, steps: int) -> list[Lap]:
    """The laps of all stages but their loading; the steps between the first and the last are one lap each."""
    import torch

    from consisid_benchmarks.fake_gpu.stages import run_stages
    from consisid_benchmarks.gpu_run.stopwatch import Stopwatch

    watch, latest = Stopwatch(gauge), ""

    def begin(stage: str) -> None:
        nonlocal latest
        latest = stage or (_OTHERS if latest in (_FIRST, _OTHERS) else "")
        watch(latest)

    with torch.no_grad():
        run_stages(bundle, given, begin, steps=steps)
    return [lap for lap in watch.laps if not lap.stage.startswith("load/")]


def _steps(stage: str) -> bool:
    return stage in (_FIRST, _OTHERS, _LAST)


def _seconds(laps: Iterable[Lap], wanted: Callable[[str], bool]) -> float:
    return sum(lap.seconds for lap in laps if wanted(lap.stage))
