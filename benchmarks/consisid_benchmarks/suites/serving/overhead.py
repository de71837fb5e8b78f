"""What a request costs through the door and through Triton server alone, beside the pipeline without a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from consisid_benchmarks.suites.serving.figures import single
from consisid_benchmarks.suites.serving.in_process import InProcess
from consisid_benchmarks.suites.serving.processes import Served
from consisid_benchmarks.suites.serving.requests import STEPS, Photographs, options, prompt
from consisid_measurement.harness import Arm, Mismatch, interleave
from consisid_measurement.record import OURS

if TYPE_CHECKING:
    from consisid_measurement.record import Row
    from consisid_runtime.client.client import Client
    from consisid_runtime.events import Progress
    from consisid_runtime.video import Video

IN_PROCESS, DIRECT, DIRECT_STREAM = "in-process", "direct", "direct/stream"
FRAMES = 17
_SHARE, _FIXED = 0.03, 0.005
"""What a request may cost more: this share of what it is compared with, and so many seconds."""

Call = Callable[[bytes], "tuple[Video, float]"]
"""From a photograph to the video and the seconds that it took."""


@dataclass
class _Round:
    """Times the variants of a round, and how far each is from those that it is compared with, which run before it."""

    photographs: Photographs
    seconds: dict[str, float]

    def arm(self, variant: str, call: Call, bases: Mapping[str, str]) -> Arm:
        """`bases`: metric → variant to compare with."""

        def run() -> dict[str, float]:
            video, took = call(self.photographs.next())
            self.seconds[variant] = took
            found = {"total_seconds": took, "outside_stages_seconds": took - sum(video.info["seconds"].values())}
            return found | {name: took - self.seconds[base] for name, base in bases.items()}

        return Arm(variant, run)


def grpc(door: Served, direct: Served, bundle: Path, rounds: int, progress: Progress) -> list[Row]:
    """All variants, over gRPC. Raises `Mismatch` where their videos differ."""
    from consisid_runtime.client.client import Client

    beside = {"over_direct_seconds": DIRECT, "over_in_process_seconds": IN_PROCESS}
    with InProcess(bundle) as alone, Client(door.grpc_url) as client, Client(direct.grpc_url) as other:
        calls: dict[str, tuple[Call, Mapping[str, str]]] = {
            IN_PROCESS: (lambda image: alone(image, prompt(), options(FRAMES)), {}),
            DIRECT: (_plain(other), {"over_in_process_seconds": IN_PROCESS}),
            DIRECT_STREAM: (_stream(other), beside),
            OURS: (_plain(client), beside),
        }
        return _measure("gRPC", calls, rounds, progress)


def http(door: Served, direct: Served, rounds: int, progress: Progress) -> list[Row]:
    """The door and Triton server's own port, over HTTP. Raises `Mismatch` where their videos differ."""
    from consisid_runtime.client.client import Client

    with Client(door.http_url) as client, Client(direct.http_url) as other:
        calls: dict[str, tuple[Call, Mapping[str, str]]] = {
            DIRECT: (_plain(other), {}),
            OURS: (_plain(client), {"over_direct_seconds": DIRECT}),
        }
        return _measure("HTTP", calls, rounds, progress)


def _measure(
    protocol: str, calls: Mapping[str, tuple[Call, Mapping[str, str]]], rounds: int, progress: Progress
) -> list[Row]:
    photographs = Photographs()
    image = photographs.next()
    videos = {variant: call(image)[0].mp4 for variant, (call, _) in calls.items()}
    if len(set(videos.values())) > 1:
        raise Mismatch(f"over {protocol}, {', '.join(videos)} did not all answer with the same video")
    turn = _Round(photographs, {})
    case = f"nano, {STEPS} steps, {FRAMES} frames, {protocol}"
    arms = [turn.arm(variant, *each) for variant, each in calls.items()]
    rows = interleave(case, arms, rounds=rounds, warmup=3, progress=progress)
    medians = {row.variant: row.median for row in rows if row.metric == "total_seconds"}
    allowed = {
        f"{name.removesuffix('_seconds')}_allowed_seconds": _SHARE * medians[base] + _FIXED
        for name, base in calls[OURS][1].items()
    }
    return [*rows, *(single(case, metric, seconds) for metric, seconds in allowed.items())]


def _plain(client: Client) -> Call:
    def call(image: bytes) -> tuple[Video, float]:
        begin = time.perf_counter()
        video = client.generate(image, prompt(), options(FRAMES))
        return video, time.perf_counter() - begin

    return call


def _stream(client: Client) -> Call:
    def call(image: bytes) -> tuple[Video, float]:
        begin = time.perf_counter()
        video = client.stream(image, prompt(), options(FRAMES)).video()
        return video, time.perf_counter() - begin

    return call
