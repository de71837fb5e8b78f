"""One trace from the request that created a job to the steps of its video, by W3C's Trace Context.

Spans are made by FastAPI's own instrumentation and sent by a thread of OpenTelemetry's from a bounded queue: no
collector delays a request. No prompt, portrait, key or address is in a span.
"""

from __future__ import annotations

import re
import threading
from typing import Any

from fastapi import FastAPI
from starlette.requests import Request

from consisid_runtime.door.traces import endpoint, provider
from consisid_runtime.errors import MissingExtra

_TRACEPARENT = re.compile(r"00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}")
_SECONDS = 5.0
"""For one attempt to send spans, and for the last one when the gateway ends."""
_PERSONAL = (
    "client.address",
    "client.port",
    "http.url",
    "http.user_agent",
    "net.peer.ip",
    "net.peer.port",
    "url.full",
    "url.query",
    "user_agent.original",
)
"""Attributes of both generations of OpenTelemetry's names."""
_SILENT = "/healthz,/readyz,/metrics"


class Traces:
    """Of one gateway.

    Args:
        url: of the collector's OTLP over HTTP, `http://host:4318`, with or without its path; None sends nothing.

    Raises `InvalidOption` for another URL, `MissingExtra` without OpenTelemetry.
    """

    def __init__(self, url: str | None = None) -> None:
        self._provider = None if url is None else provider(endpoint(url), "consisid-gateway")

    def watch(self, app: FastAPI) -> None:
        """Make a span of each request to this application, but for health and metrics."""
        if self._provider is None:
            return
        try:
            from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
        except ModuleNotFoundError as error:
            raise MissingExtra(f"traces need {error.name}: pip install 'consisid-runtime[gateway,trace]'") from error
        FastAPIInstrumentor.instrument_app(
            app,
            tracer_provider=self._provider,
            excluded_urls=_SILENT,
            exclude_spans=["receive", "send"],  # one for each piece of a stream
            server_request_hook=_without_people,
        )

    def close(self) -> None:
        """Send what there is, within some seconds. Blocks."""
        if self._provider is not None:
            # The library goes on for as long as it has spans; a daemon does not keep the process from ending.
            last = threading.Thread(target=self._provider.shutdown, daemon=True)
            last.start()
            last.join(_SECONDS)


def _without_people(span: Any, scope: Any) -> None:
    for name in _PERSONAL:
        if name in (span.attributes or {}):
            span.set_attribute(name, "")


def traceparent(request: Request) -> str | None:
    """Of the span of this request, or the caller's own where no spans are made; None without either.

    What a job stores, so that the worker that makes it goes on with the trace.
    """
    given = _current() or request.headers.get("traceparent", "")
    return given if _TRACEPARENT.fullmatch(given) else None


def _current() -> str | None:
    try:
        from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
    except ModuleNotFoundError:
        return None
    carrier: dict[str, str] = {}
    TraceContextTextMapPropagator().inject(carrier)
    return carrier.get("traceparent")
