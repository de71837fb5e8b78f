"""What a request costs through the door and through Triton server alone, beside the pipeline without a server."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from consisid_benchmarks.suites.serving.figures import single
from consisid_benchmarks.suites.serving.in_process import InProcess
from consisid_benchmarks.suites.serving.processes import Served
from consisid_benchmarks.suites.serving.requests import STEPS, Photographs, options, prompt
from consisid_measurement.harness import Arm, Mismatch, interleave, summarise
from consisid_measurement.record import OURS

if TYPE_CHECKING:
    from consisid_measurement.record import Row
    from consisid_runtime.client.client import Client
    from consisid_runtime.events import Progress
    from consisid_runtime.video import Video

IN_PROCESS, DIRECT, DIRECT_STREAM = "in-process", "direct", "direct/stream"
FRAMES = 17
_COMPARED = ((OURS, DIRECT), (DIRECT_STREAM, DIRECT), (OURS, IN_PROCESS), (DIRECT, IN_PROCESS))
_WARM_UP = 3
_SHARE, _FIXED = 0.03, 0.005
"""What a request may cost more: this share of what it is compared with, and so many seconds."""

Call = Callable[[bytes], "tuple[Video, float]"]
"""From a photograph to the video and the seconds that it took."""


@dataclass
class _Rounds:
    """Times the variants; of each, `total` and `outside` have the seconds of all rounds, the warm-up's first."""

    photographs: Photographs = field(default_factory=Photographs)
    total: dict[str, list[float]] = field(default_factory=dict)
    outside: dict[str, list[float]] = field(default_factory=dict)

    def arm(self, variant: str, call: Call) -> Arm:
        def run() -> dict[str, float]:
            video, took = call(self.photographs.next())
            outside = took - sum(video.info["seconds"].values())
            self.total.setdefault(variant, []).append(took)
            self.outside.setdefault(variant, []).append(outside)
            return {"total_seconds": took, "outside_stages_seconds": outside}

        return Arm(variant, run)


def _differences(seconds: Mapping[str, list[float]], variant: str, base: str, rounds: int) -> list[float]:
    """Seconds that a variant took longer than another one in each of the last rounds."""
    pairs = zip(seconds[variant], seconds[base], strict=True)
    return [mine - other for mine, other in pairs][-rounds:]


def grpc(door: Served, direct: Served, bundle: Path, rounds: int, progress: Progress) -> list[Row]:
    """All variants, over gRPC. Raises `Mismatch` where their videos differ."""
    from consisid_runtime.client.client import Client

    with InProcess(bundle) as alone, Client(door.grpc_url) as client, Client(direct.grpc_url) as other:
        calls: dict[str, Call] = {
            IN_PROCESS: lambda image: alone(image, prompt(), options(FRAMES)),
            DIRECT: _plain(other),
            DIRECT_STREAM: _stream(other),
            OURS: _plain(client),
        }
        return _measure("gRPC", calls, rounds, progress)


def http(door: Served, direct: Served, rounds: int, progress: Progress) -> list[Row]:
    """The door and Triton server's own port, over HTTP. Raises `Mismatch` where their videos differ."""
    from consisid_runtime.client.client import Client

    with Client(door.http_url) as client, Client(direct.http_url) as other:
        return _measure("HTTP", {DIRECT: _plain(other), OURS: _plain(client)}, rounds, progress)


def _measure(protocol: str, calls: Mapping[str, Call], rounds: int, progress: Progress) -> list[Row]:
    turns = _Rounds()
    image = turns.photographs.next()
    videos = {variant: call(image)[0].mp4 for variant, call in calls.items()}
    if len(set(videos.values())) > 1:
        raise Mismatch(f"over {protocol}, {', '.join(videos)} did not all answer with the same video")
    case = f"nano, {STEPS} steps, {FRAMES} frames, {protocol}"
    arms = [turns.arm(variant, call) for variant, call in calls.items()]
    rows = interleave(case, arms, rounds=rounds, warmup=_WARM_UP, progress=progress)
    medians = {row.variant: row.median for row in rows if row.metric == "total_seconds"}
    for variant, base in _COMPARED:
        if variant in calls and base in calls:
            named = f"{variant} over {base}, {protocol}"
            for metric, seconds in (("difference", turns.total), ("outside_stages_difference", turns.outside)):
                differences = _differences(seconds, variant, base, rounds)
                rows.append(summarise(named, OURS, f"{metric}_seconds", differences))
            rows.append(single(named, "allowed_seconds", _SHARE * medians[base] + _FIXED))
    return rows


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
