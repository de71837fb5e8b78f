"""Another bundle comes in place of the one that is served: in which order, and what becomes of requests.

The server is a stand-in without processes; test_reloaded.py has real ones.
"""

from __future__ import annotations

import asyncio
import json
import logging
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tritonclient.grpc import service_pb2

from consisid_runtime.door.access import Access
from consisid_runtime.door.consent import Consent
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.parts import Parts
from consisid_runtime.door.records import Request
from consisid_runtime.door.request import Tensor, check
from consisid_runtime.door.server import supervisor as subject
from consisid_runtime.door.signing import Signing
from consisid_runtime.door.traces import Traces
from consisid_runtime.errors import (
    BundleCorrupt,
    Busy,
    ConsisIDError,
    InvalidOption,
    ServerDied,
    ServerError,
    ServerUnreachable,
)
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, Plan, plan
from consisid_runtime.serve.edition import Edition

STEPS = {"old": 50, "new": 50, "more": 100}
"""Name of a bundle → the steps of a request that names none."""


def edition(name: str) -> Edition:
    geometry = Geometry(frames=49, height=480, width=720, spatial=8, temporal=4, patch=2, fixed_size=False)

    def resolve(options: Options) -> Plan:
        return plan(options if options.steps else Options(steps=STEPS[name]), geometry)

    bundle: Any = SimpleNamespace(fingerprint=name, path=Path("/bundles") / name, plan=resolve)
    return Edition(None, {}, {"BUNDLE": Path("/bundles") / name}, bundle)


class Server:
    """Serves the bundle `old`.

    Attributes:
        path: the bundle at its path now, or the error of reading it.
        broken: bundles that it cannot start on.
        slow: seconds that a start takes.
        reading: cleared, `read` does not end.
        started: the bundles that it was started on, in order.
        runs: whether it does.
    """

    def __init__(self, folder: Path) -> None:
        self.edition = edition("old")
        self.path: str | ConsisIDError = "new"
        self.broken: set[str] = set()
        self.slow = 0.0
        self.reading = threading.Event()
        self.reading.set()
        self.reads = 0
        self.started: list[str] = []
        self._tickets = folder
        self._ended = threading.Event()
        self._ended.set()

    processes, loaded_bytes = (), None

    @property
    def runs(self) -> bool:
        return not self._ended.is_set()

    @property
    def private_port(self) -> Any:
        return SimpleNamespace(tickets=self._tickets, metrics=None, bundle=self.edition.fingerprint)

    def read(self) -> Edition:
        self.reads += 1
        self.reading.wait(10)
        if isinstance(self.path, ConsisIDError):
            raise self.path
        return edition(self.path)

    def prepare(self) -> None: ...

    def start(self) -> None:
        assert not self.runs, "two at once"
        self.started.append(self.edition.fingerprint)
        self._ended.clear()
        if self._ended.wait(self.slow) or self.edition.fingerprint in self.broken:
            self._ended.set()
            raise ServerError("no memory")

    def wait(self) -> None:
        self._ended.wait()
        raise ServerError("Triton server was ended by signal 9 (SIGKILL)")

    def stop(self) -> None:
        self._ended.set()

    kill = stop


class Upstream:
    """Answers with the name of the bundle, after as many seconds as the prompt says."""

    hurt = False

    def __init__(self, port: Any) -> None:
        self.port = port
        self._closed = asyncio.Event()

    async def ready(self, seconds: float = 5.0) -> bool:
        serves = not self._closed.is_set()
        await asyncio.sleep(0.01)
        return serves

    async def stream(self, message: Any, on_event: Any) -> Any:
        prompt = message.raw_input_contents[-1][4:].decode()
        try:
            async with asyncio.timeout(float(prompt)):
                await self._closed.wait()
            raise ServerDied("it ended")
        except TimeoutError:
            text = json.dumps({"bundle": self.port.bundle}).encode()
            answer = service_pb2.ModelInferResponse(raw_output_contents=[struct.pack("<I", len(text)) + text])
            answer.outputs.add(name="info", datatype="BYTES", shape=[1])
            return answer

    async def close(self) -> None:
        self._closed.set()


class Scene:
    """A door's parts before a stand-in server, which has been started."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self.server = server
        self.parts = Parts(server, Access(), limits, Consent(), Signing(), Traces())  # type: ignore[arg-type]
        self.supervisor, self.reload, self.queue = self.parts.supervisor, self.parts.reload, self.parts.queue

    async def ask(self, seconds: float = 0.0, **parameters: Any) -> str:
        """The bundle that answered, or the code of the error."""
        tensors = [Tensor("image", "UINT8", [3], b"abc"), Tensor("prompt", "BYTES", [1], [str(seconds).encode()])]
        try:
            asked = check("consisid_stream", tensors, parameters, [], "")
            answer = await self.parts.dispatch.run(asked, str(id(asked)), line=Request("http", "me", ""))
        except ConsisIDError as error:
            return error.code
        return str(json.loads(answer.raw_output_contents[0][4:])["bundle"])

    def later(self, seconds: float = 0.0, **parameters: Any) -> asyncio.Task[str]:
        return asyncio.create_task(self.ask(seconds, **parameters))

    async def computing(self, count: int) -> None:
        """Until so many requests do, whose turn came some time before."""
        await until(lambda: sum(place.began is not None for place in self.queue._running.values()) == count)

    async def reloaded(self, count: int = 1) -> None:
        await until(lambda: self.reload.outcomes.total() == count)

    async def stop(self) -> None:
        """As a door does."""
        self.supervisor.close()
        await self.parts.dispatch.close()
        await self.supervisor.stop()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():
            await asyncio.sleep(0.005)


Play = Callable[[Callable[[Scene], Awaitable[None]]], None]


@pytest.fixture
def play(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a test's coroutine on a scene, and ends it."""
    monkeypatch.setattr(subject, "Upstream", Upstream)
    monkeypatch.setattr(subject, "_LOOK", 0.02)

    def run(test: Callable[[Scene], Coroutine[Any, Any, None]], **limits: Any) -> None:
        async def main() -> None:
            scene = Scene(Server(tmp_path), Limits(**{"grace": 0.2, "restart_seconds": 0.05, **limits}))
            await scene.supervisor.start()
            tasks = [asyncio.create_task(scene.supervisor.run()), asyncio.create_task(scene.reload.run())]
            try:
                await test(scene)
            finally:
                began = time.monotonic()
                await scene.stop()
                await asyncio.wait_for(asyncio.gather(*tasks), 5)
                assert time.monotonic() - began < 2 and not scene.server.runs
                scene.server.reading.set()

        asyncio.run(main())

    return run


def test_what_runs_ends_and_what_waits_gets_the_new_bundle(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "consisid_runtime.door")

    async def test(scene: Scene) -> None:
        scene.server.slow = 0.2
        running = [scene.later(0.2), scene.later(0.1, priority=1)]
        await scene.computing(2)
        waiting = [scene.later(), scene.later(priority=1)]
        await until(lambda: scene.queue.waiting == 2)
        scene.reload.ask()
        await until(lambda: scene.reload.running)
        waiting.append(scene.later())
        assert await asyncio.gather(*running) == ["old", "old"]
        await until(lambda: scene.supervisor.upstream is None)
        assert await scene.supervisor.ready(), "requests are accepted"
        waiting.append(scene.later(priority=1))
        assert await asyncio.gather(*waiting) == ["new"] * 4
        assert scene.server.started == ["old", "new"]
        assert scene.reload.outcomes == {"OK": 1} and scene.reload.succeeded and scene.supervisor.starts == 1

    play(test)
    said = [(record.message, getattr(record, "fields", {})) for record in caplog.records if "reload" in record.message]
    assert [message.partition(": ")[2][:22] for message, _ in said] == [
        "the bundle is verified",
        "the bundle is served",
    ]
    assert said[0][1] == {"bundle": "new", "folder": "/bundles/new", "running": 2, "waiting": 2}
    assert said[1][1].keys() == {"bundle", "folder", "seconds"}


def test_a_bad_bundle_touches_nothing(play: Callable[..., None], caplog: pytest.LogCaptureFixture) -> None:
    async def test(scene: Scene) -> None:
        scene.server.path = BundleCorrupt("model.onnx changed after the export")
        scene.server.reading.clear()
        scene.reload.ask()
        await until(lambda: scene.server.reads == 1)
        assert await scene.ask() == "old", "while it is read"
        scene.server.reading.set()
        await scene.reloaded()
        assert await scene.ask() == "old" and scene.server.started == ["old"]
        assert scene.reload.outcomes == {"OK": 0, "BUNDLE_CORRUPT": 1} and not scene.reload.succeeded
        scene.server.path = "new"
        scene.reload.ask()
        await scene.reloaded(2)
        assert await scene.ask() == "new" and scene.reload.succeeded

    play(test)
    assert "served on: BUNDLE_CORRUPT: model.onnx changed" in caplog.text


def test_where_the_new_bundle_does_not_start_the_old_one_does(
    play: Callable[..., None], caplog: pytest.LogCaptureFixture
) -> None:
    async def test(scene: Scene) -> None:
        scene.server.broken = {"new"}
        running = scene.later(0.1)
        await scene.computing(1)
        waiting = [scene.later(), scene.later()]
        scene.reload.ask()
        assert [await one for one in (running, *waiting)] == ["old"] * 3
        assert scene.server.started == ["old", "new", "old"]
        assert scene.reload.outcomes == {"OK": 0, "SERVER_ERROR": 1} and scene.server.edition.fingerprint == "old"
        assert scene.supervisor.starts == 2

    play(test)
    assert "is served on: SERVER_ERROR: no memory" in caplog.text


def test_the_same_bundle_is_not_started_again(play: Callable[..., None]) -> None:
    async def test(scene: Scene) -> None:
        scene.server.path = "old"
        scene.reload.ask()
        await scene.reloaded()
        assert scene.server.started == ["old"] and scene.reload.outcomes == {"OK": 1}

    play(test)


def test_asked_for_again_meanwhile_it_is_done_once_more(play: Callable[..., None]) -> None:
    async def test(scene: Scene) -> None:
        scene.server.slow = 0.1
        scene.reload.ask()
        await until(lambda: scene.supervisor.replacing)
        scene.server.path = "more"
        for _ in range(3):
            scene.reload.ask()
        await scene.reloaded(2)
        await asyncio.sleep(0.05)
        assert scene.server.started == ["old", "new", "more"] and scene.reload.outcomes == {"OK": 2}
        assert await scene.ask(steps=2) == "more"

    play(test)


@pytest.mark.parametrize("moment", ["reading", "what runs ends", "starting"])
def test_a_stop_in_the_midst_refuses_what_waits(
    play: Callable[..., None], moment: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = []

    async def test(scene: Scene) -> None:
        scene.server.slow = 10.0
        running = scene.later({"reading": 0.3, "what runs ends": 10.0, "starting": 0.1}[moment])
        await scene.computing(1)
        waiting = scene.later(1.0)
        if moment == "reading":
            scene.server.reading.clear()
        scene.reload.ask()
        if moment == "starting":
            await until(lambda: scene.server.started == ["old", "new"])
        else:
            await until(lambda: scene.server.reads == 1)
            await asyncio.sleep(0.05)
        found.extend([running, waiting])

    play(test, grace=0.5)
    expected = "SERVER_DIED" if moment == "what runs ends" else "old"
    assert [task.result() for task in found] == [expected, "SERVER_UNREACHABLE"]
    assert "reload failed" not in caplog.text


def test_a_reload_while_the_server_cannot_be_started_again(play: Callable[..., None]) -> None:
    async def test(scene: Scene) -> None:
        scene.server.broken = {"old"}
        running = scene.later(10.0)
        await scene.computing(1)
        waiting = [scene.later(), scene.later(), scene.later(priority=1)]
        await until(lambda: scene.queue.waiting == 2)
        scene.server.stop()  # as if it died
        assert await running == "SERVER_DIED"
        await until(lambda: scene.server.started == ["old", "old"])
        scene.reload.ask()
        assert await asyncio.gather(*waiting) == ["new"] * 3
        assert scene.server.started[-1] == "new" and await scene.supervisor.ready()

    play(test)


def test_a_server_that_dies_while_what_runs_is_waited_for(play: Callable[..., None]) -> None:
    async def test(scene: Scene) -> None:
        running = scene.later(10.0)
        await scene.computing(1)
        waiting = scene.later()
        scene.reload.ask()
        await until(lambda: scene.reload.running)
        scene.server.stop()
        assert (await running, await waiting) == ("SERVER_DIED", "new")
        assert scene.server.started == ["old", "new"]
        scene.server.stop()
        await until(lambda: scene.server.started == ["old", "new", "new"])
        assert await scene.ask() == "new", "it is watched"

    play(test)


def test_the_queue_keeps_its_bound(play: Callable[..., None]) -> None:
    async def test(scene: Scene) -> None:
        assert await scene.ask(0.01) == "old"
        scene.server.slow = 0.3
        scene.supervisor.took = 7.0
        scene.reload.ask()
        await until(lambda: scene.server.started == ["old", "new"])
        waiting = [scene.later(), scene.later()]
        await until(lambda: scene.queue.waiting == 2)
        with pytest.raises(Busy) as refused:
            scene.parts.dispatch.require_room("another")
        assert refused.value.retry_after in (7.0, 8.0)
        assert await scene.later(timeout=3_000_000) == "BUSY", "it would come too late"
        assert await asyncio.gather(*waiting) == ["new", "new"]

    play(test, queue=2)


def test_who_waits_is_told_how_long(play: Callable[..., None]) -> None:
    async def test(scene: Scene) -> None:
        scene.queue.hold(20.0)
        told: list[tuple[int, float | None]] = []
        tasks = [
            asyncio.create_task(
                scene.queue.enter(str(n), 1e9, urgent=False, seconds=2.0, moved=lambda *seen: told.append(seen))
            )
            for n in range(2)
        ]
        await until(lambda: len(told) == 2)
        assert [position for position, _ in told] == [0, 1]
        assert [round(left) for _, left in told if left] == [22, 24]
        scene.queue.resume()
        await tasks[0]
        scene.queue.leave(urgent=False)
        await tasks[1]
        scene.queue.leave(urgent=False)

    play(test)


def test_what_was_measured_of_the_old_bundle_is_forgotten(play: Callable[..., None]) -> None:
    async def test(scene: Scene) -> None:
        assert await scene.ask(0.02) == "old"
        await scene.queue.enter("me", 1e9, urgent=False, seconds=None)
        scene.queue.begin(urgent=False)
        assert scene.queue.wait() is not None
        scene.queue.leave(urgent=False)
        scene.reload.ask()
        await scene.reloaded()
        await scene.queue.enter("me", 1e9, urgent=False, seconds=None)
        scene.queue.begin(urgent=False)
        assert scene.queue.wait() is None
        scene.queue.leave(urgent=False)

    play(test)


def test_a_request_that_waited_is_within_the_limits_for_the_new_bundle(play: Callable[..., None]) -> None:
    async def test(scene: Scene) -> None:
        scene.server.path, scene.server.slow = "more", 0.1
        running = scene.later(0.1)
        await scene.computing(1)
        waiting = [scene.later(), scene.later(steps=50)]
        scene.reload.ask()
        assert [await one for one in (running, *waiting)] == ["old", InvalidOption.code, "more"]

    play(test, steps=60)


def test_who_finds_the_server_in_its_last_moment_gets_the_next_one(play: Callable[..., None]) -> None:
    """It has looked whether the server is ready, and begins after the server was told to end."""

    async def test(scene: Scene) -> None:
        asked = scene.later()
        await until(lambda: scene.queue.running == 1)
        replaced = asyncio.create_task(scene.supervisor.replace(edition("new"), scene.queue))
        assert await asked == "new"
        await replaced

    play(test)


def test_who_waits_for_a_server_that_restarts_is_refused_at_once_by_a_stop(play: Callable[..., None]) -> None:
    found = []

    async def test(scene: Scene) -> None:
        scene.server.broken = {"old"}
        scene.server.stop()
        await until(lambda: scene.supervisor.upstream is None)
        found.append(scene.later())
        await until(lambda: scene.queue.running == 1)

    play(test, grace=5.0)
    assert found[0].result() == ServerUnreachable.code
