"""Spans of requests for a collector of OpenTelemetry: one for each request, one for its wait, one for each stage.

They are made when a request has ended, from times that the door has anyway, and sent by a thread of the library's own
from a bounded queue: no collector delays a request. No prompt, photograph, token or address is in a span.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from consisid_runtime.errors import InvalidOption, MissingExtra

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

    from consisid_runtime.door.records import Request

_PATH = "/v1/traces"
_SECONDS = 5.0
"""For one attempt to send spans, and for the last one when the door is closed."""
_OPTIONS = ("tier", "steps", "frames", "height", "width")
_STEPS = ("computed_steps", "guided_steps")

log = logging.getLogger(__name__)


class Traces:
    """Of one door.

    Args:
        url: of the collector's OTLP over HTTP, `http://host:4318`, with or without its path; None sends nothing.

    Raises `InvalidOption` for another URL, `MissingExtra` without OpenTelemetry.
    """

    def __init__(self, url: str | None = None) -> None:
        self._provider = None if url is None else provider(endpoint(url), "consisid")

    def ended(self, request: Request, outcome: str) -> None:
        """A request has ended now, with "OK" or the code of its error."""
        if self._provider is None:
            return
        try:
            self._send(self._provider, request, outcome)
        except Exception as error:  # whatever the library may raise is no failure of the request
            log.error("a trace could not be made", exc_info=error)

    def close(self) -> None:
        """Send what there is, within some seconds. Blocks."""
        if self._provider is not None:
            # The library goes on for as long as it has spans; a daemon does not keep the process from ending.
            last = threading.Thread(target=self._provider.shutdown, daemon=True)
            last.start()
            last.join(_SECONDS)

    def _send(self, provider: TracerProvider, request: Request, outcome: str) -> None:
        from opentelemetry.trace import SpanKind, Status, StatusCode, set_span_in_context
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

        ended, behind = time.monotonic(), time.time() - time.monotonic()

        def clock(monotonic: float) -> int:
            return int((monotonic + behind) * 1e9)

        tracer = provider.get_tracer("consisid")
        root = tracer.start_span(
            "consisid.request",
            context=TraceContextTextMapPropagator().extract({"traceparent": request.traceparent}),
            kind=SpanKind.SERVER,
            start_time=clock(request.began),
            attributes=_of_request(request, outcome),
        )
        within = set_span_in_context(root)
        if (turn := request.turn) is not None:
            tracer.start_span("queue", within, start_time=clock(request.began)).end(clock(turn))
        for name, began, until in _stages(request, ended):
            attributes = _of_stage(name, request.info)
            tracer.start_span(name, within, start_time=clock(began), attributes=attributes).end(clock(until))
        if outcome != "OK":
            root.set_status(Status(StatusCode.ERROR, outcome))
        root.end(clock(ended))


def _stages(request: Request, ended: float) -> Iterator[tuple[str, float, float]]:
    """Each stage, its begin and its end. Where no event told the begin, it is the end of the stage before."""
    seconds, told = request.info.get("seconds", {}), request.stages
    names = [*told, *(name for name in seconds if name not in told)]
    until = request.began if request.turn is None else request.turn
    for name, following in pairwise([*names, ""]):
        began, took = told.get(name, until), seconds.get(name)
        until = began + took if isinstance(took, int | float) else told.get(following, ended)
        yield name, began, until


def _of_request(request: Request, outcome: str) -> dict[str, Any]:
    options = request.info.get("options", {})
    found = {name: options.get(name) for name in _OPTIONS} | {"bundle": request.info.get("bundle")}
    found |= {"request": request.identifier, "protocol": request.protocol, "outcome": outcome}
    return {f"consisid.{name}": value for name, value in found.items() if isinstance(value, str | int)}


def _of_stage(name: str, info: Mapping[str, Any]) -> dict[str, Any]:
    report = info.get(name, {})
    wanted = {"denoise": _STEPS, "face": ("face_cached",)}.get(name, ())
    return {f"consisid.{key}": report[key] for key in wanted if isinstance(report.get(key), int)}


def endpoint(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidOption(f"a collector's URL is http://host:4318 or https://…, got {url!r}")
    return url if parts.path.strip("/") else url.rstrip("/") + _PATH


def provider(endpoint: str, service: str) -> TracerProvider:
    """Sends spans of this service to a collector. Raises `MissingExtra`."""
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise MissingExtra(f"traces need {error.name}: pip install 'consisid-runtime[trace]'") from error
    provider = TracerProvider(resource=Resource.create({"service.name": service}), shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint, timeout=_SECONDS)
    provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
    return provider
