"""What the door writes down: a log line for each request, without its content."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import secrets
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from consisid_runtime.door.meters import Meters
from consisid_runtime.door.request import REQUEST
from consisid_runtime.door.traces import Traces
from consisid_runtime.errors import ConsisIDError
from consisid_runtime.events import QUEUE, Event
from consisid_runtime.wire import REQUEST_ID

CURRENT: ContextVar[str] = ContextVar("request", default="")
"""The identifier of the request that a task works on, for the log and for the models; empty where it works on none."""

log = logging.getLogger(__name__)


class Request:
    """One request's line. Its fields are set as they become known.

    Attributes:
        identifier: the caller's, where it is a short word, else a random one.
        received, sent: bytes of the request and the answer.
        kind: "request", or "estimate" or "trial", which the other metrics leave out: they say nothing of callers.
        traceparent: the caller's, of W3C's Trace Context, as it came; may be empty or anything.
        stages: each, and when it began, by `time.monotonic`.
        info: the answer's.
    """

    def __init__(self, protocol: str, peer: str, identifier: str, traceparent: str = "") -> None:
        self.protocol, self.peer, self.traceparent = protocol, peer, traceparent
        self.identifier = identifier if REQUEST_ID.fullmatch(identifier) else secrets.token_hex(8)
        self.received = self.sent = 0
        self.kind = REQUEST
        self.began = time.monotonic()
        self.turn: float | None = None
        self.event: float | None = None
        self.stages: dict[str, float] = {}
        self.info: Mapping[str, Any] = {}

    def take_turn(self) -> None:
        """The request waits no longer."""
        self.turn = time.monotonic()

    def saw(self, event: Event) -> None:
        """The models have sent an event: with the first of a stage it begins."""
        if event.stage != QUEUE:
            self.stages.setdefault(event.stage, time.monotonic())

    def first_event(self) -> None:
        """The caller has taken an event; later ones count for nothing."""
        if self.event is None:
            self.event = time.monotonic()


class Records:
    """Of one door."""

    def __init__(self, meters: Meters, traces: Traces) -> None:
        self._meters, self._traces = meters, traces

    @contextmanager
    def request(self, protocol: str, peer: str, identifier: str, traceparent: str) -> Iterator[Request]:
        """One request for inference: counts and logs how it ends."""
        request, outcome = Request(protocol, peer, identifier, traceparent), "INTERNAL"
        # Not reset: an unexpected error is logged behind this block; the task ends with the call.
        CURRENT.set(request.identifier)
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
        self._meters.ended(protocol, outcome)

    def _end(self, request: Request, outcome: str) -> None:
        took = time.monotonic() - request.began
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
        if request.event is not None:
            fields["seconds_to_event"] = round(request.event - request.began, 4)
        log.info(request.kind, extra={"fields": fields})
        if request.kind == REQUEST:
            self._measure(request, outcome, took)
            self._traces.ended(request, outcome)
        else:
            self._meters.aside(request.kind, outcome)

    def _measure(self, request: Request, outcome: str, took: float) -> None:
        self.count(request.protocol, outcome)
        if request.turn is not None:
            self._meters.waited(request.turn - request.began)
        if request.event is not None:
            self._meters.first_event(request.event - request.began)
        if outcome == "OK":
            self._meters.took(took)


class JsonLines(logging.Formatter):
    """A line of JSON for each record."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{record.msecs:03.0f}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
            **({"request": identifier} if (identifier := CURRENT.get()) else {}),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line)


@contextmanager
def writing(handler: logging.Handler, level: int = logging.INFO) -> Iterator[None]:
    """The door's log from this level on goes to `handler`, as JSON lines, and nowhere else."""
    logger = logging.getLogger(__package__)
    handler.setFormatter(JsonLines())
    before = logger.level, logger.propagate
    logger.setLevel(level)
    logger.propagate = False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        with contextlib.suppress(OSError, ValueError):
            handler.flush()
        logger.level, logger.propagate = before
