"""What the door counts and measures, for Prometheus. docs/serving.md has a table of the names."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, InfoMetricFamily, Metric
from prometheus_client.registry import Collector

from consisid_runtime.stages.table import STAGES
from consisid_runtime.wire import TRIAL

if TYPE_CHECKING:
    from consisid_runtime.door.admission.budget import Budget
    from consisid_runtime.door.admission.queue import Queue
    from consisid_runtime.door.limits import Limits
    from consisid_runtime.door.server.reload import Reload
    from consisid_runtime.door.server.supervisor import Supervisor

_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_SHORT = (0.01, 0.05, *_SECONDS)
_EVALUATION = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20)


class Meters:
    """Of one door, in a registry of its own."""

    def __init__(self, limits: Limits, queue: Queue, budget: Budget, supervisor: Supervisor, reload: Reload) -> None:
        self._registry = CollectorRegistry()
        ProcessCollector(registry=self._registry)
        self._registry.register(_Starts(supervisor))
        self._registry.register(_Reloads(reload))
        self._requests = Counter(
            "consisid_requests", "Requests for inference that ended.", ("protocol", "outcome"), registry=self._registry
        )
        self._asides = Counter(
            "consisid_asides", "Estimates and trials that ended.", ("kind", "outcome"), registry=self._registry
        )
        self._faces = Counter(
            "consisid_faces", "Photographs of answered requests.", ("cached",), registry=self._registry
        )
        self._waited = self._histogram("consisid_queue_seconds", "Until a turn came.", _SECONDS)
        self._took = self._histogram(
            "consisid_request_seconds", "Of requests that succeeded, with their wait.", _SECONDS
        )
        self._first = self._histogram(
            "consisid_first_event_seconds", "Of streams, until the caller had an event.", _SHORT
        )
        self._released = self._histogram(
            "consisid_release_seconds", "Until the models ended a request that nobody waited for any more.", _SHORT
        )
        self._stage = self._histogram("consisid_stage_seconds", "That a stage computed.", _SHORT, ("stage",))
        self._evaluation = self._histogram(
            "consisid_evaluation_seconds", "Of one evaluation of the denoising network.", _EVALUATION
        )
        # From the start, so that the first of each is an increase.
        for stage in STAGES:
            self._stage.labels(stage.name)
        for kind in ("estimate", TRIAL):
            self._asides.labels(kind, "OK")
        for known in (True, False):
            self._faces.labels(_word(known))
        for name, shown, read in (
            ("consisid_queue_waiting", "Requests that wait.", lambda: queue.waiting),
            ("consisid_queue_places", "Requests that may wait.", lambda: limits.queue),
            ("consisid_queue_oldest_seconds", "That the request has waited that waits longest.", lambda: queue.oldest),
            ("consisid_running", "Requests that run.", lambda: queue.running),
            ("consisid_expected_wait_seconds", "Of a request that came now.", lambda: queue.wait() or 0.0),
            ("consisid_bytes_in_flight", "Of requests in memory.", lambda: budget.used),
            ("consisid_server_up", "Whether Triton server runs.", lambda: supervisor.upstream is not None),
            ("consisid_reloading", "Whether requests wait for the next bundle.", lambda: reload.running),
            ("consisid_last_reload_successful", "Whether it was, or there was none.", lambda: reload.succeeded),
        ):
            Gauge(name, shown, registry=self._registry).set_function(read)

    def ended(self, protocol: str, outcome: str) -> None:
        """A request, with "OK" or the code of its error."""
        self._requests.labels(protocol, outcome).inc()

    def aside(self, kind: str, outcome: str) -> None:
        """An estimate or a trial, with "OK" or the code of its error."""
        self._asides.labels(kind, outcome).inc()

    def waited(self, seconds: float) -> None:
        """A request's turn came."""
        self._waited.observe(seconds)

    def first_event(self, seconds: float) -> None:
        """A caller had the first event of its stream."""
        self._first.observe(seconds)

    def took(self, seconds: float) -> None:
        """A request succeeded."""
        self._took.observe(seconds)

    def released(self, seconds: float) -> None:
        """The models ended a request, so long after they were told that nobody waits for it."""
        self._released.observe(seconds)

    def computed(self, info: Mapping[str, Any], *, whole: bool) -> None:
        """An answer has this `info`; what it lacks is not measured.

        Args:
            whole: the request went on from no checkpoint, so that all its steps were computed.
        """
        seconds, denoise = _object(info, "seconds"), _object(info, "denoise")
        for stage in STAGES:
            if (took := _number(seconds, stage.name)) is not None:
                self._stage.labels(stage.name).observe(took)
        evaluations = (_number(denoise, "computed_steps") or 0) + (_number(denoise, "guided_steps") or 0)
        if whole and evaluations and (took := _number(seconds, "denoise")) is not None:
            self._evaluation.observe(took / evaluations)
        if isinstance(known := _object(info, "face").get("face_cached"), bool):
            self._faces.labels(_word(known)).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _histogram(self, name: str, shown: str, buckets: Iterable[float], labels: Iterable[str] = ()) -> Histogram:
        return Histogram(name, shown, labels, buckets=tuple(buckets), registry=self._registry)


class _Starts(Collector):
    """Counts that the supervisor keeps."""

    def __init__(self, supervisor: Supervisor) -> None:
        self._supervisor = supervisor

    def collect(self) -> Iterator[CounterMetricFamily]:
        yield CounterMetricFamily("consisid_server_starts", "Of Triton server.", self._supervisor.starts)
        shown = "Starts because models did not end a request, or the server answered nothing."
        yield CounterMetricFamily("consisid_server_hung", shown, self._supervisor.hung)


class _Reloads(Collector):
    """What is served, and how the reloads ended."""

    def __init__(self, reload: Reload) -> None:
        self._reload = reload

    def collect(self) -> Iterator[Metric]:
        ended = CounterMetricFamily("consisid_reloads", "Of the bundle, that ended.", labels=("outcome",))
        for outcome, count in self._reload.outcomes.items():
            ended.add_metric((outcome,), count)
        yield ended
        yield InfoMetricFamily("consisid_bundle", "What is served.", {"fingerprint": self._reload.fingerprint})


def _word(known: bool) -> str:
    return "true" if known else "false"


def _object(info: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = info.get(name)
    return found if isinstance(found, Mapping) else {}


def _number(found: Mapping[str, Any], name: str) -> float | None:
    number = found.get(name)
    fits = isinstance(number, int | float) and math.isfinite(number) and number >= 0
    return float(number) if fits else None  # type: ignore[arg-type]
