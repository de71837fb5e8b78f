"""The trace that a request belongs to: what is sent of it, and what a job stores."""

from __future__ import annotations

import asyncio
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import StreamingResponse

from consisid_gateway.watch import traces as module
from consisid_gateway.watch.traces import Traces, traceparent
from consisid_gateway.worker.maker import ServerMaker
from consisid_runtime import Client, Options
from consisid_runtime.client.access import Access
from consisid_runtime.client.connect import connect
from consisid_runtime.errors import InvalidOption, NoFace

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def request(*values: str) -> Request:
    return Request({"type": "http", "headers": [(b"traceparent", value.encode()) for value in values]})


def test_the_callers_is_kept() -> None:
    assert traceparent(request(GIVEN)) == GIVEN
    assert traceparent(request()) is None


@pytest.mark.parametrize(
    "value",
    [
        "",
        "x",
        GIVEN.upper(),
        GIVEN + "-x",
        "00-" + "0" * 32 + "-b7ad6b7169203331-01",
        GIVEN.replace("b7ad6b7169203331", "0" * 16),
    ],
)
def test_what_is_none_is_not(value: str) -> None:
    assert traceparent(request(value)) is None


def test_a_collector_has_a_url() -> None:
    with pytest.raises(InvalidOption, match="collector"):
        Traces("collector:4318")
    Traces(None).close()


def test_a_request_is_one_span_of_its_callers_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("opentelemetry.instrumentation.fastapi")
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    sent, made = InMemorySpanExporter(), TracerProvider(shutdown_on_exit=False)
    made.add_span_processor(SimpleSpanProcessor(sent))
    monkeypatch.setattr(module, "provider", lambda url, service: made)
    app, stored = FastAPI(), list[str | None]()

    @app.get("/v1/videos/{video_id}")
    async def get(video_id: str, request: Request) -> StreamingResponse:
        stored.append(traceparent(request))
        return StreamingResponse(iter([b"a"] * 50))

    @app.get("/healthz")
    async def health() -> None: ...

    traces = Traces("http://127.0.0.1:4318")
    traces.watch(app)
    for path in ("/healthz", "/v1/videos/video_1"):
        ask(app, path)
    traces.close()
    (span,) = sent.get_finished_spans()
    assert span.context is not None and span.parent is not None
    trace, parent = f"{span.context.trace_id:032x}", f"{span.parent.span_id:016x}"
    assert [trace, parent] == GIVEN.split("-")[1:3]
    assert stored == [f"00-{trace}-{span.context.span_id:016x}-01"], "the worker's spans are below this one"
    told = repr(dict(span.attributes or {}))
    assert span.name == "GET /v1/videos/{video_id}"
    for secret in ("192.0.2.1", "a-browser", "secret"):
        assert secret not in told


@pytest.mark.parametrize("trace", [GIVEN, None])
def test_the_worker_passes_it_to_its_server(trace: str | None) -> None:
    class Door(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            seen.append(self.headers["traceparent"])
            self.send_response(400)
            self.end_headers()
            self.wfile.write(b'{"error": "NO_FACE: none"}')

        def log_message(self, *_: object) -> None: ...

    seen: list[str | None] = []
    with HTTPServer(("127.0.0.1", 0), Door) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        url = f"http://127.0.0.1:{server.server_port}"
        maker = ServerMaker(lambda trace: Client(connect(url, Access(traceparent=trace)), timeout=10), 1.0)
        making = maker.make(b"portrait", "a cat", Options(), urgent=False, checkpoint=None, trace=trace)
        with pytest.raises(NoFace):
            next(iter(making))
        thread.join()
    assert seen == [trace]


def ask(app: Any, path: str) -> None:
    headers = {"traceparent": GIVEN, "user-agent": "a-browser", "host": "x"}
    scope = {
        "type": "http",
        "method": "GET",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"after=a%20secret",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("192.0.2.1", 4242),
        "server": ("127.0.0.1", 8000),
        "scheme": "http",
        "http_version": "1.1",
    }

    messages = iter([{"type": "http.request", "body": b"", "more_body": False}])

    async def receive() -> Any:
        return next(messages, None) or await asyncio.Event().wait()

    async def send(message: Any) -> None: ...

    asyncio.run(app(scope, receive, send))
