"""The supervisor and the door, with stand-ins for Triton server: starts that fail, silence, and early stops."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import pytest
from door_requests import later

from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.server import supervisor as subject
from consisid_runtime.door.server.supervisor import Supervisor
from consisid_runtime.errors import ServerError, ServerUnreachable
from consisid_runtime.serve.edition import Edition


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
