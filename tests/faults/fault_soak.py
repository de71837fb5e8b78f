"""Traffic for hours, in parts of minutes, and how the memory of each process changes meanwhile."""

from __future__ import annotations

import statistics
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from fault_mixture import Mixture
from fault_requests import Known
from fault_server import FaultServer

from consisid_fidelity.metrics.statistics import Estimate, estimate

PARTS, SECONDS = 120, 60.0
"""Two hours."""
WARM = 45.0
"""Seconds of traffic before a server's memory is looked at: what it once needs, it keeps."""
_EVERY = 2.0
_MEBIBYTE, _HOUR = 2**20, 3600.0


def part(server: FaultServer, number: int, seconds: float, known: Sequence[Known], *, warm: float) -> dict[str, Any]:
    """Send the mixture for so long, after `warm` seconds that are not looked at. Returns what the record has."""
    processes, mixture = server.look(), Mixture(server, known, f"soak{number}")
    samples: list[tuple[float, dict[str, int]]] = []
    ended = threading.Event()

    def watch() -> None:
        if ended.wait(warm):
            return
        while not ended.wait(_EVERY):
            samples.append((time.monotonic(), server.memory()))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        mixture.run(range(number * 10**6, (number + 1) * 10**6), warm + seconds)
    finally:
        ended.set()
        watcher.join()
    assert mixture.findings == {}
    mixture.compare_with_log()
    assert server.look() == processes and server.files() == []
    times = [when for when, _ in samples]
    return {
        "seconds": round(warm + seconds),
        "requests": mixture.ends.total(),
        "ends": dict(sorted(mixture.ends.items())),
        "mebibytes": {name: round(samples[-1][1][name] / _MEBIBYTE, 1) for name in sorted(processes)},
        "mebibytes_per_hour": {
            name: round(slope(times, [memory[name] for _, memory in samples]) * _HOUR / _MEBIBYTE, 1)
            for name in sorted(processes)
        },
        "open_files": server.descriptors(),
    }


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Of the line through them by least squares."""
    return statistics.linear_regression(times, values).slope


def growth(parts: Iterable[Mapping[str, Any]]) -> dict[str, Estimate]:
    """Process → MiB an hour, the mean of the parts' slopes."""
    found: dict[str, list[float]] = {}
    for one in parts:
        for name, value in one["mebibytes_per_hour"].items():
            found.setdefault(name, []).append(value)
    return {name: estimate(values) for name, values in found.items()}
