"""What a server does where nobody wants anything of it: after a request that was cancelled, and with none at all."""

from __future__ import annotations

import random
import re
import time
import urllib.request
from dataclasses import replace
from typing import TYPE_CHECKING

from consisid_benchmarks.suites.serving.figures import percentile, single
from consisid_benchmarks.suites.serving.requests import Photographs, options, prompt
from consisid_runtime.errors import ServerError

if TYPE_CHECKING:
    from consisid_benchmarks.suites.serving.processes import Served
    from consisid_measurement.record import Row
    from consisid_runtime.client.client import Client
    from consisid_runtime.events import Progress

_FRAMES, _MANY_STEPS, _SEED = 49, 200, 14
_LONGEST = 30.0
"""Seconds that a cancelled request may take to end."""
_SETTLE = 3.0
"""Seconds after the last request; then nothing of it is left."""


def cancelled(door: Served, rounds: int, progress: Progress) -> list[Row]:
    """Seconds from the door's notice that the caller has left to the end of the models' work, by the door's metrics.

    The callers leave at random moments of the denoising.

    Raises `ServerError` where a cancelled request does not end.
    """
    from consisid_runtime.client.client import Client

    photographs, generator, released = Photographs(), random.Random(_SEED), list[float]()
    with Client(door.grpc_url) as client:
        step, before = _step_seconds(client, photographs), _releases(door.metrics_url)
        for turn in range(rounds):
            progress("cancelled", turn, rounds)
            _leave(client, photographs.next(), generator.uniform(0.05, 0.05 + 5 * step))
            after = _next_release(door.metrics_url, before)
            released.append(after[1] - before[1])
            before = after
    figures = {"cancelled_count": float(rounds), "step_seconds": step}
    for percent in (50, 99):
        seconds = percentile(released, percent)
        figures |= {f"release_p{percent}_seconds": seconds, f"release_p{percent}_per_step_ratio": seconds / step}
    case = f"cancelled while denoising {_FRAMES} frames"
    return [single(case, metric, value) for metric, value in figures.items()]


def idle(door: Served, seconds: float) -> list[Row]:
    """The share of a core that all processes of a server without requests take."""
    time.sleep(_SETTLE)
    before, begin = door.cpu_seconds(), time.perf_counter()
    time.sleep(seconds)
    share = 100 * (door.cpu_seconds() - before) / (time.perf_counter() - begin)
    return [single("idle", "core_percent", share), single("idle", "rss_bytes", float(door.rss_bytes()))]


def _step_seconds(client: Client, photographs: Photographs) -> float:
    chosen = options(_FRAMES)
    infos = [client.generate(photographs.next(), prompt(), chosen).info for _ in range(3)]
    seconds: list[float] = [info["seconds"]["denoise"] / chosen.steps for info in infos]
    return percentile(seconds, 50)


def _leave(client: Client, image: bytes, after: float) -> None:
    """Send a request and cancel it so many seconds after its denoising began."""
    with client.stream(image, prompt(), replace(options(_FRAMES), steps=_MANY_STEPS)) as stream:
        for item in stream:
            if getattr(item, "stage", "") == "denoise":
                break
        time.sleep(after)


def _next_release(url: str, before: tuple[float, float]) -> tuple[float, float]:
    """How many releases the door has counted and their seconds, once there is another one than before."""
    until = time.monotonic() + _LONGEST
    while time.monotonic() < until:
        time.sleep(0.1)
        if (found := _releases(url))[0] > before[0]:
            return found
    raise ServerError(f"a request that was cancelled did not end within {_LONGEST:g} s")


def _releases(url: str) -> tuple[float, float]:
    with urllib.request.urlopen(url, timeout=10) as answer:
        text = answer.read().decode()
    found = dict(re.findall(r"^consisid_release_seconds_(count|sum) (\S+)$", text, re.MULTILINE))
    return float(found["count"]), float(found["sum"])
