"""Suite `kernels`: times this project's kernels and PyTorch's fastest equivalents on a GPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from consisid_benchmarks.suites.gpu import captured, ceilings, require_gpu, seconds
from consisid_measurement.commands import Json, MachineName, Out, Rounds, results_folder, run_suite
from consisid_runtime.cli.progress import Display

if TYPE_CHECKING:
    from consisid_benchmarks.suites.kernel_case_types import Case, Size
    from consisid_measurement.record import Row
    from consisid_runtime.events import Progress

SUITE = "kernels"
GATE = "tests/kernels"
PACKAGES = ("consisid-runtime", "torch", "triton")
_LEAST_SECONDS = 0.02
"""Minimum duration of one sample; launches are repeated to reach it."""


def command(rounds: Rounds = 20, machine: MachineName = None, out: Out = None, as_json: Json = False) -> None:
    """Time every kernel at ConsisID-preview's size against PyTorch's back-ends and compiler. Needs a GPU."""
    require_gpu(SUITE)
    from consisid_benchmarks.suites.kernel_case_types import Size

    results = results_folder(out)
    bounds: dict[str, float | None] = {}

    def limits() -> dict[str, float | None]:
        bounds.update(ceilings())
        return bounds

    def rows() -> list[Row]:
        with Display("bench kernels") as display:
            return measure(Size(), bounds, rounds=rounds, progress=display.update)

    run_suite(SUITE, GATE, rows, packages=PACKAGES, machine=machine, results=results, as_json=as_json, ceilings=limits)


def measure(size: Size, bounds: Mapping[str, float | None], *, rounds: int, progress: Progress) -> list[Row]:
    """All rows. Raises `Mismatch` when a peer's result differs; a peer that rejects the inputs is skipped.

    A call is replayed from a CUDA graph if it can be captured, which removes the launch overhead of the host.
    Metrics: "kernel_seconds" of one call; "tflops" or "gbps", computed from the minimum work of the case; and their
    share of this GPU's matrix product or copy, "matmul_percent" or "copy_percent".
    """
    from consisid_benchmarks.suites.kernel_cases import cases
    from consisid_measurement.harness import Arm, interleave

    rows: list[Row] = []
    for case in cases(size):
        try:
            calls = usable(case)
        except ValueError as refused:  # a kernel that does not support this architecture
            print(f"{case.name}: skipped: {refused}")
            continue
        arms = [Arm(name, partial(_sample, captured(call), case, bounds)) for name, call in calls.items()]
        rows += interleave(case.name, arms, rounds=rounds, warmup=3, progress=progress)
    return rows


def usable(case: Case) -> dict[str, Callable[[], object]]:
    """The calls that run. Raises `Mismatch` when a result differs from ours."""
    import torch

    from consisid_measurement.harness import Mismatch

    def parts(found: object) -> list[torch.Tensor]:
        return [t.float() for t in (found if isinstance(found, tuple) else (found,)) if isinstance(t, torch.Tensor)]

    calls: dict[str, Callable[[], object]] = {"ours": case.calls["ours"]}
    wanted = parts(case.calls["ours"]())
    for name, call in case.calls.items():
        try:
            found = parts(call())
        except RuntimeError as refused:
            if name.startswith("ours"):
                raise
            print(f"{case.name}: {name} is skipped: {str(refused).splitlines()[0]}")
            continue
        error = max(float((a - b).norm() / b.norm()) for a, b in zip(found, wanted, strict=True))
        if not error <= case.tolerance:
            raise Mismatch(f"{case.name}: the results of {name} and ours differ by {error:.1e} (relative L2)")
        calls[name] = call
    return calls


def _sample(call: Callable[[], object], case: Case, bounds: Mapping[str, float | None]) -> dict[str, float]:
    repeats = max(1, round(_LEAST_SECONDS / seconds(call, 1)))
    took = seconds(call, repeats) / repeats
    found = {"kernel_seconds": took}
    work, metric, bound, share = (
        (case.flops / 1e12, "tflops", "matmul_bf16_tflops", "matmul_percent")
        if case.flops
        else (case.traffic / 1e9, "gbps", "copy_gbps", "copy_percent")
    )
    found[metric] = work / took
    if ceiling := bounds[bound]:
        found[share] = 100 * found[metric] / ceiling
    return found
