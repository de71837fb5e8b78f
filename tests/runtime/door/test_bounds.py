"""Time, connections, memory and places in the queue are bounded; a health check is answered beside all of them."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
import tritonclient.grpc
import tritonclient.http
from door_requests import call, exchange, grpc_request, head, json_request, place, post, refusal, video
from google.rpc import error_details_pb2, status_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.client.client import Client
from consisid_runtime.door.door import Door
from consisid_runtime.errors import Busy
from consisid_runtime.options import Options

pytestmark = pytest.mark.server

READY = head(0, "Connection: close", path="/v2/health/ready", method="GET")


def closed_after(url: str, sent: bytes, slowly: bytes = b"", pause: float = 0.1) -> tuple[float, bytes]:
    """Seconds until the peer closes, and what it sent before; `slowly` is sent byte by byte."""
    begin = time.monotonic()
    with socket.create_connection(place(url), timeout=10) as connection:
        connection.sendall(sent)
        connection.settimeout(pause if slowly else 10)
        received = b""
        while True:
            try:
                if not (piece := connection.recv(4096)):
                    break
                received += piece
            except TimeoutError:
                with contextlib.suppress(OSError):
                    connection.sendall(slowly[:1])
                slowly = slowly[1:]
            except ConnectionError:
                break
    return time.monotonic() - begin, received


@pytest.mark.parametrize(
    ("sent", "slowly", "status"),
    [
        (b"", b"", 408),
        (b"GET /v2/hea", b"", 408),
        (b"GET /v2/health/live HTTP/1.1\r\n", b"X: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", 408),
        (head(100) + b"{", b"", 408),
        (head(100), b"{" * 90, 408),
    ],
    ids=["nothing", "half a line", "a slow head", "half a body", "a slow body"],
)
def test_a_request_arrives_in_time_or_not_at_all(strict_door: Door, sent: bytes, slowly: bytes, status: int) -> None:
    took, answer = closed_after(strict_door.http_url, sent, slowly)
    assert took < 2.5
    assert refusal(answer) == (status, "SERVER_TIMEOUT")


def test_a_silent_connection_is_closed(strict_door: Door) -> None:
    took, answer = closed_after(strict_door.http_url, READY.replace(b"Connection: close\r\n", b""))
    assert answer.startswith(b"HTTP/1.1 200") and 0.5 < took < 2.5


def test_a_client_does_not_notice_that_its_idle_connection_was_closed(strict_door: Door) -> None:
    with tritonclient.http.InferenceServerClient(strict_door.http_url.partition("//")[2]) as client:
        assert client.is_server_ready()
        time.sleep(1.5)
        assert client.is_server_ready()


def test_a_silent_call_over_grpc_ends(strict_door: Door) -> None:
    silent = threading.Event()

    def nothing() -> Iterator[Any]:
        silent.wait(20)
        return iter(())

    with grpc.insecure_channel(strict_door.grpc_url.partition("//")[2]) as channel:
        path = "/inference.GRPCInferenceService/ModelInfer"
        calls = [channel.stream_unary(path).future(once(nothing)) for _ in range(12)]
        time.sleep(0.3)
        assert sum(call.done() for call in calls) == 8, "one address has four, the others are refused at once"
        with tritonclient.grpc.InferenceServerClient(strict_door.grpc_url.partition("//")[2]) as client:
            assert client.is_server_ready(client_timeout=5) and client.is_server_live(client_timeout=5)
        codes = sorted(call.code().name for call in calls)
        silent.set()
    assert set(codes) == {"DEADLINE_EXCEEDED", "UNAVAILABLE"}, "too many are refused, the others end"


def once(wait: Any) -> Iterator[Any]:
    yield from wait()


def test_an_answer_that_nobody_takes_is_dropped(strict_door: Door) -> None:
    """Of 9 MB the kernel holds some; the rest is given up a second later."""
    frames = [{"name": "frames", "parameters": {"binary_data": True}}]
    body = json_request(parameters={"raw_frames": True, "frames": 9}, outputs=frames)
    received = 0
    with socket.create_connection(place(strict_door.http_url), timeout=20) as connection:
        connection.sendall(post(body))
        assert connection.recv(1) == b"H"
        time.sleep(1.5)
        with contextlib.suppress(ConnectionError):
            while piece := connection.recv(2**20):
                received += len(piece)
    assert 0 < received < 9 * 480 * 720 * 3


def test_idle_connections_shut_nobody_out(strict_door: Door) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(40):
            stack.enter_context(socket.create_connection(place(strict_door.http_url), timeout=5))
        time.sleep(0.1)
        assert exchange(strict_door.http_url, READY, 5).startswith(b"HTTP/1.1 200")
        assert refusal(exchange(strict_door.http_url, post(json_request()), 5)) == (200, "")


def test_connections_that_all_work_leave_health_its_answer(strict_door: Door) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(4):
            held = stack.enter_context(socket.create_connection(place(strict_door.http_url), timeout=5))
            held.sendall(head(100) + b"{")
        time.sleep(0.1)
        assert exchange(strict_door.http_url, READY, 5).startswith(b"HTTP/1.1 200")
        answer = exchange(strict_door.http_url, post(json_request()), 5)
        assert refusal(answer) == (503, "BUSY") and b"retry-after: 5" in answer


@pytest.fixture
def full(strict_door: Door) -> Iterator[Door]:
    """One request runs, and this address has its two places in the queue."""
    threads = [
        threading.Thread(target=lambda: exchange(strict_door.http_url, post(json_request("sleep 1.5"))))
        for _ in range(3)
    ]
    for thread in threads:
        thread.start()
        time.sleep(0.1)
    yield strict_door
    for thread in threads:
        thread.join()


def test_a_full_queue_says_when_to_come_back(full: Door) -> None:
    begin = time.monotonic()
    answer = exchange(full.http_url, head(10**6), 5)
    assert refusal(answer) == (503, "BUSY") and b"\r\nretry-after: " in answer, "before the body is read"
    for url in (full.http_url, full.grpc_url):
        with Client(url, timeout=10) as client, pytest.raises(Busy, match="try again in") as refused:
            client.generate(b"abc", "a man", Options())
        assert refused.value.retry_after is not None and refused.value.retry_after >= 1
    with pytest.raises(grpc.RpcError) as raised:
        call(full.grpc_url, grpc_request())
    assert raised.value.code() is grpc.StatusCode.UNAVAILABLE
    trailing = dict(raised.value.trailing_metadata())
    status = status_pb2.Status.FromString(trailing["grpc-status-details-bin"])
    info = error_details_pb2.RetryInfo()
    assert status.details[0].Unpack(info)
    assert info.retry_delay.seconds * 1000 == int(trailing["grpc-retry-pushback-ms"]) >= 1000
    assert time.monotonic() - begin < 2
    assert exchange(full.http_url, READY, 5).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("how", ["timeout", "grpc"])
def test_a_deadline_ends_the_work(strict_door: Door, how: str) -> None:
    begin = time.monotonic()
    if how == "timeout":
        body = json_request("sleep 20", parameters={"timeout": 300_000})
        assert refusal(exchange(strict_door.http_url, post(body))) == (504, "SERVER_TIMEOUT")
    else:
        with pytest.raises(grpc.RpcError) as raised:
            call(strict_door.grpc_url, grpc_request("sleep 20"), timeout=0.3)
        assert raised.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert video(strict_door) == b"abc"
    assert time.monotonic() - begin < 3, "the models stopped, too"


def test_an_urgent_request_goes_first(strict_door: Door) -> None:
    order: list[str] = []

    def ask(name: str, prompt: str, priority: int) -> None:
        request = grpc_request(prompt)
        request.parameters["priority"].int64_param = priority
        call(strict_door.grpc_url, request)
        order.append(name)

    threads = []
    for name, prompt, priority in (("first", "sleep 0.8", 0), ("ordinary", "a man", 2), ("urgent", "a man", 1)):
        threads.append(threading.Thread(target=ask, args=(name, prompt, priority)))
        threads[-1].start()
        time.sleep(0.1)
    for thread in threads:
        thread.join()
    assert order == ["urgent", "first", "ordinary"]


def test_memory_stays_bounded(strict_door: Door) -> None:
    """Thirty images of 12 MB at once took a door without a budget to a gigabyte."""
    request = grpc_request(image=bytes(12 * 2**20))
    codes: list[str] = []

    def ask() -> None:
        try:
            call(strict_door.grpc_url, request)
            codes.append("OK")
        except grpc.RpcError as error:
            codes.append(error.code().name)

    threads = [threading.Thread(target=ask) for _ in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(codes) <= {"OK", "UNAVAILABLE"} and "OK" in codes
    assert video(strict_door) == b"abc"


def test_json_numbers_do_not_hold_the_loop(strict_door: Door) -> None:
    """Nine million numbers of an answer in JSON: others have their turn in between."""
    body = json_request(parameters={"raw_frames": True, "frames": 9}, outputs=[{"name": "frames"}])
    thread = threading.Thread(target=exchange, args=(strict_door.http_url, post(body)))
    thread.start()
    worst = 0.0
    while thread.is_alive():
        begin = time.monotonic()
        assert exchange(strict_door.http_url, READY, 5).startswith(b"HTTP/1.1 200")
        worst = max(worst, time.monotonic() - begin)
        time.sleep(0.02)
    assert worst < 2


def test_calls_that_are_cancelled_leave_nothing_behind(strict_door: Door) -> None:
    with grpc.insecure_channel(strict_door.grpc_url.partition("//")[2]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        for _ in range(20):
            stub.ModelMetadata.future(service_pb2.ModelMetadataRequest(name="consisid"), timeout=5).cancel()
        # Four calls at once are one address's; the door hears of the end of the others a moment later.
        deadline = time.monotonic() + 5
        while True:
            try:
                assert stub.ModelMetadata(service_pb2.ModelMetadataRequest(name="consisid"), timeout=5).name
                break
            except grpc.RpcError as error:
                assert error.code() is grpc.StatusCode.UNAVAILABLE and time.monotonic() < deadline
                time.sleep(0.05)
