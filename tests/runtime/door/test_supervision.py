"""Triton server dies, and the door goes on: what ran is told so, what waited is computed, a stop is orderly."""

from __future__ import annotations

import contextlib
import os
import signal
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from door_requests import call, exchange, grpc_request, json_request, later, post, processes, refusal, video
from grpc_health.v1 import health_pb2, health_pb2_grpc

from consisid_runtime.client.client import Client
from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import BundleCorrupt, InvalidOption, ServerDied
from consisid_runtime.serve.tritonserver import TritonServer


@pytest.fixture
def mortal(tiny_repository: Path) -> Iterator[tuple[Door, TritonServer]]:
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, limits=Limits(grace=0.5)) as door:
        yield door, server


@contextlib.contextmanager
def watched(door: Door) -> Iterator[Any]:
    """What gRPC's health check tells who watches it."""
    with grpc.insecure_channel(door.grpc_url.partition("//")[2]) as channel:
        yield health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=120)


@pytest.mark.server
@pytest.mark.parametrize("name", ["tritonserver", "triton_python_backend_stub"])
def test_a_killed_server_is_started_again_and_the_queue_kept(mortal: tuple[Door, TritonServer], name: str) -> None:
    door, server = mortal
    with Client(door.grpc_url, timeout=60) as client, watched(door) as health:
        running = later(lambda: client.generate(b"abc", "sleep 30"))
        time.sleep(0.4)
        waiting = [
            later(lambda: refusal(exchange(door.http_url, post(json_request()), 60))),
            later(lambda: call(door.grpc_url, grpc_request()).raw_output_contents[0]),
        ]
        time.sleep(0.2)
        begin = time.monotonic()
        os.kill(max(processes(server, name)), signal.SIGKILL)
        died = running()
        assert isinstance(died, ServerDied) and "may be sent again" in str(died)
        assert time.monotonic() - begin < 2
        assert not client.ready()
        assert exchange(door.http_url, b"GET /v2/health/live HTTP/1.1\r\nConnection: close\r\n\r\n")[9:12] == b"200"
        assert [result() for result in waiting] == [(200, ""), b"abc"]
        assert client.ready()
        kinds = health_pb2.HealthCheckResponse
        assert [next(health).status for _ in range(3)] == [kinds.SERVING, kinds.NOT_SERVING, kinds.SERVING]
        assert len(processes(server, "tritonserver")) == 1
        door.stop()
        assert list(health) == [], "it ends with the door"


@pytest.mark.server
def test_models_that_hear_nothing_do_not_keep_the_turn(tiny_repository: Path) -> None:
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, limits=Limits(stubborn=0.3)) as door:
        body = json_request("hang 60", parameters={"timeout": 300_000})
        assert refusal(exchange(door.http_url, post(body))) == (504, "SERVER_TIMEOUT")
        died = json_request("sleep 30", parameters={"priority": 1})
        assert refusal(exchange(door.http_url, post(died), 30)) == (502, "SERVER_DIED")
        assert video(door) == b"abc", "by the next server"
        with urllib.request.urlopen(door.metrics_url, timeout=10) as answer:
            text = answer.read().decode()
        assert "consisid_server_hung_total 1.0" in text and "consisid_server_starts_total 2.0" in text


@pytest.mark.server
def test_stopping_refuses_what_waits_and_lets_what_runs_end(tiny_repository: Path) -> None:
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, limits=Limits(grace=3)) as door:
        running = later(lambda: call(door.grpc_url, grpc_request("sleep 1")).raw_output_contents[0])
        time.sleep(0.3)
        waiting = [
            later(lambda: refusal(exchange(door.http_url, post(json_request())))),
            later(lambda: call(door.grpc_url, grpc_request())),
        ]
        time.sleep(0.3)
        begin = time.monotonic()
    assert time.monotonic() - begin < 5
    assert running() == b"abc"
    assert waiting[0]() == (503, "SERVER_UNREACHABLE")
    assert isinstance(waiting[1](), grpc.RpcError) and "not begun" in waiting[1]().details()
    assert not processes(server, "")
    door.stop()


@pytest.mark.server
def test_what_does_not_end_within_the_grace_is_told_so(mortal: tuple[Door, TritonServer]) -> None:
    door, server = mortal
    running = later(lambda: refusal(exchange(door.http_url, post(json_request("sleep 30")), 60)))
    time.sleep(0.4)
    begin = time.monotonic()
    door.stop()
    assert running() == (502, "SERVER_DIED") and time.monotonic() - begin < 8
    assert not processes(server, "")


@pytest.mark.server
def test_a_server_that_cannot_start_says_why(tiny_repository: Path) -> None:
    server = TritonServer(tiny_repository, private=True, environment={"TINY_LOAD": "second"}, ready_timeout=60)
    with pytest.raises(BundleCorrupt, match="changed after the export"):
        Door(server).start()


def test_a_foreign_host_is_refused_before_anything_is_started(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"192\.0\.2\.1"):
        Door(TritonServer(tmp_path, private=True), host="192.0.2.1").start()


@pytest.mark.server
def test_a_port_taken_meanwhile_is_named(
    tiny_repository: Path, tiny_door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    port = int(tiny_door.http_url.rpartition(":")[2])
    monkeypatch.setattr("consisid_runtime.door.door.free_ports", lambda address, ports: (0, port, 0))
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with pytest.raises(InvalidOption, match=r"cannot listen on 127\.0\.0\.1"):
        Door(server).start()
    assert not processes(server, "")
    assert video(tiny_door) == b"abc"
