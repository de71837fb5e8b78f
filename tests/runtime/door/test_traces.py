"""Spans of requests, as a collector gets them."""

from __future__ import annotations

import http.server
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from door_requests import exchange, head, json_request, post, refusal
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from consisid_runtime.client.client import Client
from consisid_runtime.door.door import Door
from consisid_runtime.door.records import Request
from consisid_runtime.door.traces import Traces
from consisid_runtime.errors import InvalidOption
from consisid_runtime.events import QUEUE, Event
from consisid_runtime.serve.tritonserver import TritonServer

TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SECRETS = (b"a secret prompt", b"a-long-enough-token", b"127.0.0.1")


class Collector(http.server.ThreadingHTTPServer):
    """Keeps what it is sent."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.bodies: list[bytes] = []
        self.paths: set[str] = set()
        self.url = f"http://127.0.0.1:{self.server_address[1]}"

    def spans(self, count: int) -> list[Any]:
        """All, once there are so many."""
        deadline = time.monotonic() + 10
        found: list[Any] = []
        while len(found) < count and time.monotonic() < deadline:
            time.sleep(0.02)
            sent = [ExportTraceServiceRequest.FromString(body) for body in self.bodies]
            found = [
                span for one in sent for group in one.resource_spans for sc in group.scope_spans for span in sc.spans
            ]
        return found


class _Handler(http.server.BaseHTTPRequestHandler):
    server: Collector

    def do_POST(self) -> None:
        self.server.bodies.append(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.paths.add(self.path)
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def values(span: Any) -> dict[str, Any]:
    found = {one.key.removeprefix("consisid."): one.value for one in span.attributes}
    return {name: getattr(value, value.WhichOneof("value")) for name, value in found.items()}


def seconds(span: Any) -> float:
    return float(span.end_time_unix_nano - span.start_time_unix_nano) / 1e9


@pytest.mark.server
def test_a_request_and_its_stages(tiny_repository: Path, collector: Collector) -> None:
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, traces=collector.url) as door:
        content = json.dumps({"image": "YWJj", "prompt": "sleep 0.3"}).encode()
        fields = "Connection: close", f"traceparent: 00-{TRACE}-{PARENT}-01"
        asked = head(len(content), *fields, path="/v2/models/consisid_stream/generate_stream") + content
        assert b"200 OK" in exchange(door.http_url, asked)
        with Client(door.grpc_url, timeout=20) as client:
            client.trial()
        assert refusal(exchange(door.http_url, post(json_request("no face"))))[1] == "NO_FACE"
        spans = collector.spans(5)
    roots = [span for span in spans if span.name == "consisid.request"]
    assert len(roots) == 2, "a trial has none"
    (root,) = (span for span in roots if span.trace_id.hex() == TRACE)
    assert root.parent_span_id.hex() == PARENT and values(root)["outcome"] == "OK"
    children = {span.name: span for span in spans if span.parent_span_id == root.span_id}
    assert children.keys() == {"queue", "denoise"}
    assert seconds(children["queue"]) < 0.1 and 0.25 < seconds(children["denoise"]) < seconds(root)
    (failed,) = (span for span in roots if span is not root)
    assert values(failed)["outcome"] == "NO_FACE" and failed.status.code == 2 and not failed.parent_span_id
    assert collector.paths == {"/v1/traces"}
    assert not any(secret in body for secret in SECRETS for body in collector.bodies)


def ended(traces: Traces, traceparent: str = "", told: tuple[str, ...] = ("face", "denoise", "denoise")) -> Request:
    """A request whose stages began as the models told, and took what the answer says."""
    request = Request("grpc", "127.0.0.1", "mine", traceparent)
    request.take_turn()
    request.saw(Event(QUEUE, 0, 1))
    for stage in told:
        request.saw(Event(stage, 0, 1))
    request.info = {
        "seconds": {"face": 0.5, "denoise": 2.25},
        "options": {"steps": 4, "frames": 9, "tier": "exact", "negative_prompt": "a secret prompt"},
        "face": {"face_cached": True, "face_box": [1, 2, 3, 4]},
        "denoise": {"computed_steps": 4, "guided_steps": 1},
    }
    traces.ended(request, "OK")
    return request


@pytest.mark.parametrize("traceparent", ["", "x" * 9999, f"00-{TRACE}-{PARENT}-01"])
def test_stages_last_what_the_answer_says(collector: Collector, traceparent: str) -> None:
    traces = Traces(f"{collector.url}/v1/traces")
    ended(traces, traceparent)
    traces.close()
    found = {span.name: span for span in collector.spans(4)}
    assert found.keys() == {"consisid.request", "queue", "face", "denoise"}
    assert seconds(found["face"]) == pytest.approx(0.5) and seconds(found["denoise"]) == pytest.approx(2.25)
    assert values(found["denoise"]) == {"computed_steps": 4, "guided_steps": 1}
    assert values(found["face"]) == {"face_cached": True}
    root = values(found["consisid.request"])
    assert root == {
        "request": "mine", "protocol": "grpc", "outcome": "OK", "steps": 4, "frames": 9, "tier": "exact",
    }  # fmt: skip
    assert (found["face"].trace_id.hex() == TRACE) == traceparent.startswith("00-")
    assert not any(secret in body for secret in SECRETS for body in collector.bodies)


def test_without_events_stages_follow_each_other(collector: Collector) -> None:
    traces = Traces(collector.url)
    ended(traces, told=())
    traces.close()
    found = {span.name: span for span in collector.spans(4)}
    assert seconds(found["face"]) == pytest.approx(0.5) and seconds(found["denoise"]) == pytest.approx(2.25)
    assert found["queue"].end_time_unix_nano == found["face"].start_time_unix_nano
    assert found["face"].end_time_unix_nano == found["denoise"].start_time_unix_nano


def test_a_caller_may_ask_for_no_spans(collector: Collector) -> None:
    traces = Traces(collector.url)
    ended(traces, f"00-{TRACE}-{PARENT}-00")
    traces.close()
    assert not collector.bodies


@pytest.mark.parametrize("silent", [False, True], ids=["nothing listens", "never answers"])
def test_a_collector_that_cannot_be_reached_delays_nothing(silent: bool) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}" if silent else "http://127.0.0.1:9"
        traces = Traces(url)
        begin = time.monotonic()
        for _ in range(3000):  # more than the library keeps
            ended(traces)
        assert (time.monotonic() - begin) / 3000 < 0.005
        begin = time.monotonic()
        traces.close()
        assert time.monotonic() - begin < 8


def test_what_the_library_raises_is_no_failure(monkeypatch: pytest.MonkeyPatch, caplog: Any) -> None:
    traces = Traces("http://127.0.0.1:9")
    monkeypatch.setattr(traces, "_send", lambda *_: 1 / 0)
    ended(traces)
    assert "a trace could not be made" in caplog.text
    traces.close()


@pytest.mark.parametrize("url", ["127.0.0.1:4318", "grpc://collector:4317", "http://", ""])
def test_another_url_is_refused(url: str) -> None:
    with pytest.raises(InvalidOption, match="collector"):
        Traces(url)
