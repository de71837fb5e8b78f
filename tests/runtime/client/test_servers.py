"""Several servers: which one is asked, and what follows where it does not take the request."""

from __future__ import annotations

import asyncio
import json
import os
import threading
from collections.abc import AsyncGenerator
from typing import Any

import numpy as np
import pytest

from consisid_runtime import AsyncClient, Client, Options, Video
from consisid_runtime.client import transport as transport_module
from consisid_runtime.client.servers.balance import Balance, plan_of
from consisid_runtime.errors import (
    Busy,
    InvalidOption,
    NoFace,
    ServerDied,
    ServerError,
    ServerTimeout,
    ServerUnreachable,
)
from consisid_runtime.events import Event

SHORT, LONG = plan_of({"steps": 4}), plan_of({"steps": 50})


class Fake:
    """A server that answers, or raises what it is told to.

    Attributes:
        asked: requests that came.
        unready: whether it says that it is not.
    """

    def __init__(self, name: str = "", error: Exception | None = None, seconds: float = 1.0) -> None:
        self.name, self.error, self.seconds = name, error, seconds
        self.asked = self.health = 0
        self.unready = False
        self.gate: asyncio.Event | None = None

    async def infer(self, *_: Any, patience: float, **__: Any) -> dict[str, Any]:
        assert patience == 0, "others may take it"
        self.asked += 1
        if self.error is not None:
            raise self.error
        if self.gate is not None:
            await self.gate.wait()
        info = {"server": self.name, "seconds": {"denoise": self.seconds}}
        return {"video": np.frombuffer(b"mp4", np.uint8), "info": np.array([json.dumps(info).encode()], np.object_)}

    async def stream(self, *arguments: Any, patience: float, **named: Any) -> AsyncGenerator[dict[str, Any], None]:
        answer = await self.infer(*arguments, patience=patience, **named)
        yield {"event": np.array([Event("denoise", 1, 2).to_json().encode()], np.object_)}
        if self.name == "breaks":
            raise ServerDied("it ended")
        yield answer

    async def ready(self, timeout: float) -> bool:
        self.health += 1
        return not self.unready


def answered(client: Client) -> str:
    return str(client.generate(b"photo", "a man").info["server"])


@pytest.mark.parametrize(
    "error", [Busy("full", 5.0), ServerUnreachable("gone"), ServerUnreachable("being stopped; not begun")], ids=repr
)
def test_a_server_that_did_not_begin_is_passed_over(error: Exception) -> None:
    first, second = Fake("first", error), Fake("second")
    client = Client([first, second])
    assert [answered(client) for _ in range(3)] == ["second"] * 3
    assert first.asked == 1, "it rests"
    assert isinstance(list(client.stream(b"photo", "a man"))[-1], Video)


@pytest.mark.parametrize(
    "error",
    [ServerUnreachable("lost", begun=True), ServerDied("died"), NoFace("none"), ServerError("x"), ServerTimeout("y")],
)
def test_nothing_is_computed_twice(error: Exception) -> None:
    first, second = Fake("first", error), Fake("second")
    with pytest.raises(type(error)):
        Client([first, second]).generate(b"photo", "a man")
    assert (first.asked, second.asked) == (1, 0)


def test_a_stream_that_has_begun_stays_where_it_is() -> None:
    first, second = Fake("breaks"), Fake("second")
    with pytest.raises(ServerDied):
        list(Client([first, second]).stream(b"photo", "a man"))
    assert second.asked == 0


def test_an_error_when_none_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transport_module, "_BACKOFF", 100.0)
    busy, later, gone = Fake("a", Busy("full", 9.0)), Fake("b", Busy("full", 4.0)), Fake("c", ServerUnreachable("gone"))
    with pytest.raises(Busy, match="none of 3 servers took the request: full; full; gone") as refused:
        Client([busy, later, gone]).generate(b"photo", "a man")
    assert refused.value.retry_after == 4
    with pytest.raises(ServerUnreachable, match="none of 2 servers took the request: gone; gone"):
        Client([gone, Fake("d", ServerUnreachable("gone"))]).generate(b"photo", "a man")
    with pytest.raises(InvalidOption, match="at least one server"):
        Client([])


def test_servers_that_start_are_waited_for() -> None:
    late, gone = Fake("late"), Fake("gone", ServerUnreachable("gone"))
    late.unready = True
    timer = threading.Timer(0.3, lambda: setattr(late, "unready", False))
    timer.start()
    assert answered(Client([late, gone])) == "late"
    timer.join()


def test_a_server_is_asked_for_its_health_before_it_is_trusted() -> None:
    first, second = Fake("first"), Fake("second")
    first.unready = True
    client = Client([first, second])
    assert answered(client) == "second" and first.asked == 0 and first.health == 1
    assert answered(client) == "second"
    assert second.health == 1, "it has answered before"
    assert client.ready()
    second.unready = True
    assert not client.ready()


def test_requests_go_where_the_least_work_is() -> None:
    async def main() -> None:
        slow, fast = Fake("slow", seconds=9.0), Fake("fast", seconds=2.0)
        client = AsyncClient([slow, fast])
        for _ in range(2):  # one each, from which their seconds are known
            await client.generate(b"photo", "a man")
        assert (slow.asked, fast.asked) == (1, 1)
        slow.gate = fast.gate = asyncio.Event()
        calls = [asyncio.create_task(client.generate(b"photo", "a man")) for _ in range(5)]
        await asyncio.sleep(0.05)
        assert (slow.asked, fast.asked) == (2, 5), "2, 4, 6, 8 seconds there, and then 9 here"
        slow.gate.set()
        await asyncio.gather(*calls)

    asyncio.run(main())


def test_a_cancelled_request_is_no_work_any_more() -> None:
    async def main() -> None:
        first, second = Fake("first"), Fake("second")
        first.gate = asyncio.Event()
        client = AsyncClient([first, second])
        call = asyncio.create_task(client.generate(b"photo", "a man"))
        await asyncio.sleep(0.01)
        for _ in range(2):
            assert (await client.generate(b"photo", "a man")).info["server"] == "second"
        call.cancel()
        await asyncio.wait({call})
        first.gate.set()
        assert (await client.generate(b"photo", "a man")).info["server"] == "first"

    asyncio.run(main())


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_work_is_counted_in_seconds_once_they_are_known() -> None:
    clock = Clock()
    balance = Balance(2, clock)

    def take(plan: Any) -> Any:
        work = balance.take(plan, ())
        assert work is not None
        return work

    first, second = take(LONG), take(SHORT)
    assert (first.server, second.server) == (0, 1), "nothing is known: they are counted"
    balance.end(first, 60.0)
    balance.end(second, 4.0)
    assert take(LONG).server == 0, "60 s at either, by the first's measure"
    assert [take(SHORT).server for _ in range(15)] == [1] * 15, "4 s each, 60 in all"
    clock.now = 30.0
    assert take(SHORT).server == 0, "half of the long one is done, and one of the short ones"


def test_a_server_that_rests_is_asked_last_and_longer_each_time() -> None:
    clock = Clock()
    balance = Balance(2, clock)

    def first() -> int:
        work = balance.take(SHORT, ())
        assert work is not None
        balance.end(work)
        return work.server

    for pause in (1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 30.0):
        balance.rest(0, ServerUnreachable("gone"))
        clock.now += pause - 0.01
        assert {first(), first()} == {1}
        clock.now += 0.02
        assert {first(), first()} == {0, 1}
    balance.rest(0, Busy("full", 7.0))
    clock.now += 6.9
    assert {first(), first()} == {1} and balance.is_proven(0), "it has answered"
    assert balance.take(SHORT, {0, 1}) is None


def test_a_forked_process_begins_without_the_work_of_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    balance = Balance(2, Clock())
    for _ in range(3):
        balance.take(SHORT, {1})
    balance._lock.acquire()  # as another thread may, when a process is forked
    monkeypatch.setattr(os, "getpid", lambda: 1)
    work = balance.take(SHORT, ())
    assert work is not None and work.server == 1 and len(balance._works) == 1


def test_options_decide_what_is_similar() -> None:
    assert plan_of(Options(steps=4, seed=1).to_mapping()) == plan_of(Options(steps=4, seed=2).to_mapping())
    assert plan_of(Options(steps=4, frames=17).to_mapping()) != plan_of(Options(steps=4).to_mapping())


def test_the_latest_kinds_of_requests_are_known() -> None:
    balance = Balance(1)
    for steps in (4, 50, *range(100, 163), 50, 200):
        work = balance.take(plan_of({"steps": steps}), ())
        assert work is not None
        balance.end(work, float(steps))
    expected = [balance.take(plan, ()) for plan in (LONG, SHORT)]
    assert [round(work.expected) for work in expected if work] == [50, 131], "the other's is a guess"
