"""From the counts of the fake GPU to seconds: the slower of device and host, kernel by kernel.

seconds(kernel) = max(FLOPs / (share · peak), bytes / (share · bandwidth)); the host needs a time for each launch, which
runs beside the device, and each wait adds to both.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from consisid_benchmarks.fake_gpu.count import COPIES, Count, Work
from consisid_benchmarks.fake_gpu.stages import FP8
from consisid_benchmarks.predict.ceilings import LAUNCH_SECONDS, PAGEABLE_GBPS, SHARES, WAIT_SECONDS, Device
from consisid_runtime.signatures import MODULATION_BLOCK

End = Literal["worst", "likely", "best"]
ENDS: tuple[End, ...] = ("best", "likely", "worst")
STEPS = 50
"""Denoising steps of a request, as the published pipeline's default."""
RUN = ("face", "text", "encode", "denoise/start", "denoise/first-step", "denoise/step", "decode")
"""Stages of a request without loading; all but the steps run once."""
_FIRST_STEPS = STEPS // MODULATION_BLOCK
TIMES = dict.fromkeys(RUN, 1) | {"denoise/first-step": _FIRST_STEPS, "denoise/step": STEPS - _FIRST_STEPS}
"""Stage → how often a request runs it."""
FP8_STAGES = {name: FP8 + name for name in RUN if name.startswith("denoise/")}
"""Stage → its name where the step is in fp8."""


@dataclass(frozen=True, slots=True)
class Seconds:
    """A predicted time: at best, likely, at worst."""

    best: float
    likely: float
    worst: float


def stage_seconds(name: str, count: Count, device: Device) -> Seconds:
    """The time of one run of a stage."""
    return Seconds(*(_stage(name, count, device, end) for end in ENDS))


def request_seconds(stages: Mapping[str, Seconds]) -> Seconds:
    """A whole request on a warm pipeline, without insightface's networks and the MP4, which run on the CPU."""
    return Seconds(*(sum(TIMES[name] * getattr(stages[name], end) for name in RUN) for end in ENDS))


def resident_bytes(counts: Mapping[str, Count]) -> int:
    """Of one process that keeps every stage's weights: these, and the most that any stage needs beside its own."""
    first = {stage.partition("/")[0]: counts[stage] for stage in reversed(RUN)}
    weights = {stage: count.start_bytes for stage, count in first.items()}
    beside = (counts[stage].peak_bytes - weights[stage.partition("/")[0]] for stage in RUN)
    return sum(weights.values()) + max(beside)


def device_seconds(name: str, count: Count, device: Device, end: End) -> float:
    """What the kernels of a stage take the device, one after the other."""
    return sum(_kernel(name, kernel, work, device, end) for kernel, work in count.kernels.items())


def predict(budget: Mapping[str, Any], device: Device) -> dict[str, Any]:
    """The record of a prediction, from the budget of case "full"; "fp8" has what differs where the step is in fp8."""
    counts = {name: Count.from_json(budget["stages"][name]) for name in RUN}
    in_fp8 = {name: Count.from_json(budget["stages"][own]) for name, own in FP8_STAGES.items()}
    fp8 = _of_request(counts | in_fp8, device)
    return {
        "kind": "predicted",
        "device": asdict(device),
        "versions": budget["versions"],
        "shares": {name: asdict(share) for name, share in _shares()},
        **_of_request(counts, device),
        "fp8": fp8 | {"stages": {FP8_STAGES[name]: fp8["stages"][name] for name in in_fp8}},
    }


def _of_request(counts: Mapping[str, Count], device: Device) -> dict[str, Any]:
    stages = {name: stage_seconds(name, count, device) for name, count in counts.items()}
    return {
        "stages": {
            name: {
                "seconds": asdict(stages[name]),
                "times": TIMES[name],
                "peak_bytes": count.peak_bytes,
                "waits": sum(count.waits.values()),
                **asdict(count.total),
            }
            for name, count in counts.items()
        },
        "request": {"seconds": asdict(request_seconds(stages)), "resident_bytes": resident_bytes(counts)},
    }


def _shares() -> Iterator[tuple[str, Any]]:
    yield from SHARES.items()
    yield from (("launch seconds", LAUNCH_SECONDS), ("wait seconds", WAIT_SECONDS))


def _stage(name: str, count: Count, device: Device, end: End) -> float:
    on_device = device_seconds(name, count, device, end)
    on_host = count.total.launches * float(getattr(LAUNCH_SECONDS, end))
    return max(on_device, on_host) + sum(count.waits.values()) * float(getattr(WAIT_SECONDS, end))


def _kernel(stage: str, name: str, work: Work, device: Device, end: End) -> float:
    if name == COPIES:
        return work.bytes / (PAGEABLE_GBPS * 1e9)
    moving = work.bytes / (getattr(SHARES["bytes"], end) * device.gbps * 1e9)
    convolution = "float32" if stage == "face" else "convolution"  # nearly all of the face networks' are in float32
    share = SHARES[name if name in SHARES else convolution if name.startswith("convolution") else "product"]
    computing = work.flops / (getattr(share, end) * device.tflops_bf16 * 1e12)
    return float(max(moving, computing))
