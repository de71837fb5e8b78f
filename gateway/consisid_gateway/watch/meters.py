"""What a gateway counts and measures, for Prometheus. docs/gateway-data.md has a table of the names."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest

from consisid_gateway.jobs.database import Database
from consisid_gateway.watch.stored import Stored

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Meters:
    """Of one replica, in a registry of its own.

    Args:
        listeners: how many streams of events are open.
    """

    def __init__(self, database: Database, listeners: Callable[[], int]) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._requests = Counter(
            "consisid_gateway_requests",
            "Requests that were answered.",
            ("method", "route", "status"),
            registry=self._registry,
        )
        self._seconds = Histogram(
            "consisid_gateway_request_seconds",
            "From a request's head to the begin of its answer.",
            ("method", "route"),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self._refusals = Counter(
            "consisid_gateway_refusals", "Answers that were an error.", ("code",), registry=self._registry
        )
        for code in ("STORAGE_UNAVAILABLE", "LIMIT_REACHED", "UNAUTHENTICATED", "CROSS_SITE"):
            self._refusals.labels(code)  # from the start, so that the first of each is an increase
        Gauge("consisid_gateway_listeners", "Streams of events that are open.", registry=self._registry).set_function(
            listeners
        )
        self._registry.register(Stored(database))

    def answered(self, method: str, route: str, status: int, seconds: float, code: str | None) -> None:
        """A request's answer has begun.

        Args:
            route: the path with the names of its parts; not a path with ids.
            code: of the error that the answer is.
        """
        self._requests.labels(method, route, str(status)).inc()
        self._seconds.labels(method, route).observe(seconds)
        if status >= 400:
            self._refusals.labels(code or f"HTTP_{status}").inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format. Blocks while the database is asked."""
        return generate_latest(self._registry)
