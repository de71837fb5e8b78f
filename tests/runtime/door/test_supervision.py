"""Triton server dies, and the door goes on: what ran is told so, what waited is computed, a stop is orderly."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from door_requests import call, exchange, grpc_request, json_request, post, processes, refusal, video
from grpc_health.v1 import health_pb2, health_pb2_grpc

from consisid_runtime.client.client import Client
from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.server import supervisor as subject
from consisid_runtime.door.server.supervisor import Supervisor
from consisid_runtime.errors import BundleCorrupt, InvalidOption, ServerDied, ServerError, ServerUnreachable
from consisid_runtime.serve.edition import Edition
from consisid_runtime.serve.tritonserver import TritonServer


@pytest.fixture
def mortal(tiny_repository: Path) -> Iterator[tuple[Door, TritonServer]]:
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, limits=Limits(grace=0.5)) as door:
        yield door, server


def later(work: Callable[[], Any]) -> Callable[[], Any]:
    """Starts it in a thread; returns what waits for its result or exception."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(60)
        return found[0]

    return result


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


class Dying:
    """A server that dies at once, and after some starts cannot start."""

    private_port: Any = None
    edition = Edition(None, {}, {})

    def __init__(self, starts: int, seconds: float = 0.0) -> None:
        self.left, self.stops, self.seconds = starts, 0, seconds

    def prepare(self) -> None: ...

    def start(self) -> None:
        time.sleep(self.seconds)
        self.left -= 1
        if self.left < 0:
            raise ServerError("no memory")

    def wait(self) -> None:
        raise ServerError("Triton server was ended by signal 9 (SIGKILL)")

    def stop(self) -> None:
        self.stops += 1


class Upstream:
    def __init__(self, port: Any) -> None: ...

    async def ready(self, seconds: float = 5.0) -> bool:
        return True

    async def close(self) -> None: ...


def test_each_start_comes_later_and_a_server_that_cannot_start_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "Upstream", Upstream)
    server = Dying(4)

    async def run() -> float:
        watched = Supervisor(server, Limits(restart_seconds=0.01, restart_longest_seconds=0.08))  # type: ignore[arg-type]
        await watched.start()
        begin = time.monotonic()
        with pytest.raises(ServerError, match="no memory"):
            await watched.run()
        assert watched.starts == 4 and not await watched.ready()
        with pytest.raises(ServerUnreachable, match="not begun"):
            await watched.serving(0.05)
        return time.monotonic() - begin

    assert asyncio.run(run()) > 0.01 + 0.02 + 0.04 + 5 * 0.08 - 0.02


class Silent(Dying):
    """A server that runs until it is killed."""

    def __init__(self) -> None:
        super().__init__(9)
        self.killed = threading.Event()

    def start(self) -> None:
        self.killed.clear()
        super().start()

    def wait(self) -> None:
        self.killed.wait()
        super().wait()

    def kill(self) -> None:
        time.sleep(0.1)  # it cleans up
        self.killed.set()

    def stop(self) -> None:
        self.killed.set()


@pytest.mark.parametrize(("answers", "starts"), [([False] * 4, 2), ([True, False, False, False] * 3, 1)])
def test_a_server_that_answers_nothing_is_started_again(
    monkeypatch: pytest.MonkeyPatch, answers: list[bool], starts: int
) -> None:
    left = iter(answers)

    class Deaf(Upstream):
        async def ready(self, seconds: float = 5.0) -> bool:
            return next(left, True)

    monkeypatch.setattr(subject, "Upstream", Deaf)

    async def run() -> None:
        watched = Supervisor(Silent(), Limits(stubborn=0.08, restart_seconds=0.01))  # type: ignore[arg-type]
        await watched.start()
        task = asyncio.create_task(watched.run())
        await asyncio.sleep(0.6)
        found = watched.starts, watched.hung, await watched.ready()
        await watched.stop()
        await asyncio.wait_for(task, 1)
        assert found == (starts, starts - 1, True)

    asyncio.run(run())


def test_a_stop_in_the_middle_of_a_pause_ends_the_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subject, "Upstream", Upstream)

    async def run() -> None:
        watched = Supervisor(Dying(9), Limits(restart_seconds=60.0))  # type: ignore[arg-type]
        await watched.start()
        task = asyncio.create_task(watched.run())
        await asyncio.sleep(0.05)
        assert not task.done()
        await watched.stop()
        await asyncio.wait_for(task, 1)
        assert watched.starts == 1 and not await watched.ready()

    asyncio.run(run())


def test_a_stop_leaves_a_bundle_that_is_being_read() -> None:
    server = Dying(1)
    server.prepare = lambda: time.sleep(3)  # type: ignore[method-assign]
    starting = later((door := Door(server)).start)  # type: ignore[arg-type]
    time.sleep(0.2)
    began = time.monotonic()
    door.stop()
    assert isinstance(starting(), ServerUnreachable) and time.monotonic() - began < 1
    assert server.left == 1, "it was not started"


def test_a_stop_in_the_first_moment_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    server, run = Dying(9), asyncio.run
    monkeypatch.setattr(subject, "Upstream", Upstream)

    def late(main: Any) -> None:
        time.sleep(0.3)
        run(main)

    monkeypatch.setattr("consisid_runtime.door.door.asyncio.run", late)
    starting = later((door := Door(server)).start)  # type: ignore[arg-type]
    time.sleep(0.1)
    door.stop()
    assert isinstance(starting(), ServerUnreachable)


class Unborn(Dying):
    """Has no process that a stop could end until half a second after its start; then one that takes for ever."""

    def __init__(self) -> None:
        super().__init__(1)
        self.born, self.ended = threading.Event(), threading.Event()

    def start(self) -> None:
        time.sleep(0.5)
        self.born.set()
        assert self.ended.wait(20)
        raise ServerError("Triton server did not start")

    def stop(self) -> None:
        if self.born.is_set():
            self.ended.set()


def test_a_stop_ends_a_server_that_is_about_to_be_started() -> None:
    starting = later((door := Door(Unborn())).start)  # type: ignore[arg-type]
    time.sleep(0.2)
    began = time.monotonic()
    door.stop()
    assert isinstance(starting(), ServerUnreachable) and time.monotonic() - began < 2


def test_a_door_that_is_stopped_while_it_starts_ends_the_server_once_that_has_started() -> None:
    server = Dying(1, seconds=0.5)
    starting = later((door := Door(server)).start)  # type: ignore[arg-type]
    time.sleep(0.2)
    door.stop()
    assert isinstance(starting(), ServerUnreachable)
    assert server.left == 0 and server.stops >= 2, "before it has started, and then"
