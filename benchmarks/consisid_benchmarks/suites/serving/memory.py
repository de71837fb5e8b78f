"""Watches the memory of a server while it is loaded."""

from __future__ import annotations

import threading
import time
from types import TracebackType
from typing import Self

from consisid_benchmarks.suites.serving.figures import single
from consisid_benchmarks.suites.serving.processes import Served
from consisid_measurement.record import Row, Series

_PAUSE = 0.5
"""Seconds between two looks."""


class MemoryWatch:
    """Reads the resident sets of a server for as long as its `with` block lasts."""

    def __init__(self, served: Served) -> None:
        self._served, self._ended = served, threading.Event()
        self._points: list[tuple[float, float]] = []
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._thread.join()

    def figures(self, case: str) -> list[Row | Series]:
        """The most, and all of it over the seconds since the server was ready."""
        most = max(size for _, size in self._points)
        return [
            single(case, "peak_rss_bytes", most),
            Series(case, "server_rss_bytes", "elapsed_seconds", tuple(self._points)),
        ]

    def _watch(self) -> None:
        while True:
            elapsed = round(time.perf_counter() - self._served.began, 2)
            self._points.append((elapsed, float(self._served.rss_bytes())))
            if self._ended.wait(_PAUSE):
                return
