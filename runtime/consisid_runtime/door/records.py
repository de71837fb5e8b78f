"""What the door counts and writes down: Prometheus metrics, and a log line for each request, without its content."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from consisid_runtime.errors import ConsisIDError

if TYPE_CHECKING:
    from consisid_runtime.door.admission.budget import Budget
    from consisid_runtime.door.admission.queue import Queue
    from consisid_runtime.door.supervisor import Supervisor

_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1800)
_IDENTIFIER = re.compile(r"[\w.:-]{1,64}", re.ASCII)

log = logging.getLogger(__name__)


class Request:
    """One request's line. Its fields are set as they become known.

    Attributes:
        identifier: the caller's, where it is a short word, else a random one.
        received, sent: bytes of the request and the answer.
    """

    def __init__(self, protocol: str, peer: str, identifier: str) -> None:
        self.protocol, self.peer = protocol, peer
        self.identifier = identifier if _IDENTIFIER.fullmatch(identifier) else secrets.token_hex(8)
        self.received = self.sent = 0
        self.began = time.monotonic()
        self.turn: float | None = None
        self.event: float | None = None

    def take_turn(self) -> None:
        """The request waits no longer."""
        self.turn = time.monotonic()

    def first_event(self) -> None:
        """The caller has taken an event; later ones count for nothing."""
        if self.event is None:
            self.event = time.monotonic()


class Records:
    """Of one door; what it counts is in a registry of its own."""

    def __init__(self, queue: Queue, budget: Budget, supervisor: Supervisor) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "consisid_requests", "Requests for inference that ended.", ("protocol", "outcome"), registry=self._registry
        )
        self._waited = Histogram(
            "consisid_queue_seconds", "Until a turn came.", buckets=_SECONDS, registry=self._registry
        )
        self._took = Histogram(
            "consisid_request_seconds", "Of videos, with their wait.", buckets=_SECONDS, registry=self._registry
        )
        self._first = Histogram(
            "consisid_first_event_seconds",
            "Of streams, until the caller had an event.",
            buckets=(0.01, 0.05, *_SECONDS),
            registry=self._registry,
        )
        for name, shown, read in (
            ("consisid_queue_waiting", "Requests that wait.", lambda: queue.waiting),
            ("consisid_running", "Requests that run.", lambda: queue.running),
            ("consisid_expected_wait_seconds", "Of a request that came now.", lambda: queue.wait() or 0.0),
            ("consisid_bytes_in_flight", "Of requests in memory.", lambda: budget.used),
            ("consisid_server_up", "Whether Triton server runs.", lambda: supervisor.upstream is not None),
            ("consisid_server_starts", "Of Triton server.", lambda: supervisor.starts),
            ("consisid_server_hung", "Starts because models did not end a request.", lambda: supervisor.hung),
        ):
            Gauge(name, shown, registry=self._registry).set_function(read)

    @contextmanager
    def request(self, protocol: str, peer: str, identifier: str) -> Iterator[Request]:
        """One request for inference: counts and logs how it ends."""
        request, outcome = Request(protocol, peer, identifier), "INTERNAL"
        try:
            yield request
            outcome = "OK"
        except ConsisIDError as error:
            outcome = error.code
            raise
        except asyncio.CancelledError:
            outcome = "CANCELLED"
            raise
        finally:
            self._end(request, outcome)

    def count(self, protocol: str, outcome: str) -> None:
        """One request that ended before anything of it was read, or at the end of `request`."""
        self._requests.labels(protocol, outcome).inc()

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self._registry)

    def _end(self, request: Request, outcome: str) -> None:
        took = time.monotonic() - request.began
        self.count(request.protocol, outcome)
        fields = {
            "request": request.identifier,
            "protocol": request.protocol,
            "peer": request.peer,
            "outcome": outcome,
            "seconds": round(took, 4),
            "bytes_received": request.received,
            "bytes_sent": request.sent,
        }
        if request.turn is not None:
            fields["seconds_queued"] = round(request.turn - request.began, 4)
            self._waited.observe(request.turn - request.began)
        if request.event is not None:
            fields["seconds_to_event"] = round(request.event - request.began, 4)
            self._first.observe(request.event - request.began)
        if outcome == "OK":
            self._took.observe(took)
        log.info("request", extra={"fields": fields})


class JsonLines(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def writing(handler: logging.Handler) -> Iterator[None]:
    """The door's log goes to `handler`, as JSON lines, and nowhere else."""
    logger = logging.getLogger(__package__)
    handler.setFormatter(JsonLines())
    before = logger.level, logger.propagate
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError, ValueError):
            handler.flush()
        logger.level, logger.propagate = before
