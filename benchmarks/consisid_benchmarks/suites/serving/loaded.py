"""The loads of the suite: clients that wait for their answers, arrivals that do not, and a mix of requests."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any

from consisid_benchmarks.suites.serving.arrivals import Kind, Mix, poisson
from consisid_benchmarks.suites.serving.figures import latency_curve, load_rows, single
from consisid_benchmarks.suites.serving.load import Sample, Send, closed_loop, open_loop
from consisid_benchmarks.suites.serving.memory import MemoryWatch
from consisid_benchmarks.suites.serving.processes import Servers
from consisid_benchmarks.suites.serving.requests import sender
from consisid_measurement.record import Row, Series
from consisid_runtime.events import Progress

SMALL, LARGE, URGENT = Kind(17), Kind(49), Kind(17, urgent=True)
MIX = {SMALL: 0.6, LARGE: 0.25, URGENT: 0.15}
CLOSED = ((1, SMALL, 15.0), (4, SMALL, 25.0), (1, LARGE, 20.0))
"""Clients, what they ask for, seconds."""
OPEN = ((0.5, 40.0), (0.8, 40.0), (2.0, 20.0))
"""Load, as a share of what the server can do, and seconds of arrivals."""
MIXED = (0.7, 70.0)
_SEED = 14

Figures = list[Row | Series]


class Loaded:
    """Loads the door of `servers`."""

    def __init__(self, servers: Servers, progress: Progress) -> None:
        self._servers, self._progress = servers, progress

    def closed(self) -> Figures:
        """Clients that send their next request when they have their answer."""
        found: Figures = []
        for clients, kind, seconds in CLOSED:
            case = _closed_case(clients, kind)
            samples, memory = self._run(case, closed_loop(clients, seconds, kind, self._send()))
            found += [*load_rows(case, samples), latency_curve(case, samples), *memory]
        return found

    def open(self, closed: Figures) -> Figures:
        """Arrivals at shares of the rate that the closed loop says the server can do."""
        found: Figures = []
        for load, seconds in OPEN:
            case = f"arrivals, {100 * load:.0f} % load"
            rate = rate_of(load, {SMALL: 1.0}, closed)
            arrivals = poisson(rate, seconds, {SMALL: 1.0}, _SEED)
            samples, memory = self._run(case, open_loop(arrivals, self._send()))
            rows = [single(case, "offered_per_second", rate), *load_rows(case, samples)]
            found += [*rows, latency_curve(case, samples), *memory]
        return found

    def mixed(self, closed: Figures) -> Figures:
        """Arrivals of several kinds, each of which has its own figures."""
        load, seconds = MIXED
        rate, case = rate_of(load, MIX, closed), f"mix, {100 * load:.0f} % load"
        arrivals = poisson(rate, seconds, MIX, _SEED)
        samples, found = self._run(case, open_loop(arrivals, self._send()))
        for kind, share in MIX.items():
            named, own = f"{case}, {kind}", [sample for sample in samples if sample.kind == kind]
            rows = [single(named, "offered_per_second", rate * share), *load_rows(named, own)]
            found += [*rows, latency_curve(named, own)]
        return found

    def _send(self) -> Send:
        return sender(self._servers.door().grpc_url)

    def _run(self, case: str, load: Coroutine[Any, Any, list[Sample]]) -> tuple[list[Sample], Figures]:
        self._progress(case, 0, 1)
        with MemoryWatch(self._servers.door()) as watch:
            samples = asyncio.run(load)
        return samples, watch.figures(case)


def rate_of(load: float, mix: Mix, closed: Iterable[Row | Series]) -> float:
    """Requests a second that keep a server busy for this share of the time.

    Args:
        closed: the rows of the closed loop; one client's median latency is what a request keeps the server busy for.
    """
    seconds = {row.case: row.median for row in closed if isinstance(row, Row) and row.metric == "latency_p50_seconds"}
    busy = sum(share * seconds[_closed_case(1, Kind(kind.frames))] for kind, share in mix.items())
    return load * sum(mix.values()) / busy


def _closed_case(clients: int, kind: Kind) -> str:
    return f"{clients} client{'s' if clients > 1 else ''}, {kind}"
