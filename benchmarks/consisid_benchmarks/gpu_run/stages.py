"""Suite `stages`: times every stage at ConsisID-preview's size on a GPU, with random weights made there."""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from consisid_benchmarks.suites.gpu import ceilings, require_gpu
from consisid_measurement.commands import Json, MachineName, Out, Rounds, results_folder, run_suite
from consisid_runtime.cli.progress import Display

if TYPE_CHECKING:
    from consisid_benchmarks.fake_gpu.count import Count
    from consisid_benchmarks.fake_gpu.full_size import FullSize
    from consisid_benchmarks.fake_gpu.stages import MakeInput
    from consisid_benchmarks.gpu_run.stopwatch import Gauge
    from consisid_measurement.record import Row
    from consisid_runtime.events import Progress

SUITE = "stages"
GATE = "tests/kernels/test_engine.py"
PACKAGES = ("consisid-runtime", "torch", "triton", "numpy")


def command(rounds: Rounds = 5, machine: MachineName = None, out: Out = None, as_json: Json = False) -> None:
    """Time every stage at ConsisID-preview's size with random weights made on the device. Needs a GPU."""
    require_gpu(SUITE)
    import torch

    from consisid_benchmarks.fake_gpu import budgets
    from consisid_benchmarks.fake_gpu.count import Count
    from consisid_benchmarks.fake_gpu.stages import FP8
    from consisid_benchmarks.gpu_run import full_size, stopwatch
    from consisid_benchmarks.gpu_run.width_check import require_same_step
    from consisid_runtime.engines.torch import FLOAT8_CAPABILITY

    results = results_folder(out)
    bounds: dict[str, float | None] = {}

    def limits() -> dict[str, float | None]:
        bounds.update(ceilings())
        return bounds

    def rows() -> list[Row]:
        counts = {name: Count.from_json(count) for name, count in budgets.read()["full"]["stages"].items()}
        with Display("bench stages") as display:
            display.update("comparing a step at full width", 0, 1)
            require_same_step("cuda")
            given = full_size.inputs("cuda")
            common = given, stopwatch.cuda(), counts, bounds, rounds, display.update
            found = measure(lambda: full_size.bundle("cuda"), *common)
            if torch.cuda.get_device_capability() >= FLOAT8_CAPABILITY:
                found += measure(lambda: full_size.bundle("cuda", float8=True), *common, "denoise", FP8)
            return found

    run_suite(SUITE, GATE, rows, packages=PACKAGES, machine=machine, results=results, as_json=as_json, ceilings=limits)


def measure(
    bundle: Callable[[], FullSize],
    given: MakeInput,
    gauge: Gauge,
    counts: Mapping[str, Count],
    bounds: Mapping[str, float | None],
    rounds: int,
    progress: Progress,
    only: str = "",
    prefix: str = "",
) -> list[Row]:
    """A stage's networks are loaded once and freed before the next stage's; the first round is warm-up.

    Args:
        counts: stage → what the fake GPU counts in it, from which rates derive; a stage without is timed only.
        bounds: this device's ceilings, as `suites.gpu.ceilings` gives them.
        only: beginning of the names of the stages.
        prefix: before the names of the cases, as in `counts`.

    Metrics: "stage_seconds" with what the host does; "peak_bytes" of tensors; "tflops" and "gbps" of what was counted,
    and "matmul_percent" and "copy_percent", their shares of this device's ceilings.
    """
    import torch

    from consisid_benchmarks.fake_gpu.stages import STAGES, run_stages
    from consisid_benchmarks.gpu_run.stopwatch import Stopwatch
    from consisid_measurement.harness import summarise

    rows: list[Row] = []
    for stage in (name for name in STAGES if name.startswith(only)):
        samples: dict[tuple[str, str], list[float]] = {}
        loaded = bundle()
        for turn in range(1 + rounds):
            progress(stage, turn, 1 + rounds)
            watch = Stopwatch(gauge)
            with torch.no_grad():
                run_stages(loaded, given, watch, stage)
            for lap in watch.laps if turn else ():
                if not lap.stage.startswith("load/"):
                    name = prefix + lap.stage
                    for metric, value in _metrics(lap.seconds, lap.peak_bytes, counts.get(name), bounds).items():
                        samples.setdefault((name, metric), []).append(value)
        rows += [summarise(case, "ours", metric, values) for (case, metric), values in samples.items()]
        del loaded
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def _metrics(seconds: float, peak_bytes: int, count: Count | None, bounds: Mapping[str, Any]) -> dict[str, float]:
    found: dict[str, float] = {"stage_seconds": seconds, "peak_bytes": peak_bytes}
    if count is None:
        return found
    for metric, work, share, bound in (
        ("tflops", count.total.flops / 1e12, "matmul_percent", "matmul_bf16_tflops"),
        ("gbps", count.total.bytes / 1e9, "copy_percent", "copy_gbps"),
    ):
        found[metric] = work / seconds
        if bounds.get(bound):
            found[share] = 100 * found[metric] / bounds[bound]
    return found
