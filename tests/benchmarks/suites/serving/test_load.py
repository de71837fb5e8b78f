import asyncio
import time

import pytest

from consisid_benchmarks.suites.serving.arrivals import Arrival, Kind
from consisid_benchmarks.suites.serving.load import Heard, closed_loop, open_loop
from consisid_runtime.errors import Busy, NoFace

SMALL, URGENT = Kind(17), Kind(17, urgent=True)


class OneAtATime:
    """A server that works on one request at a time, for 5 ms, but stalls in the first one."""

    def __init__(self, stall: float = 0.0) -> None:
        self._turn, self._stall = asyncio.Lock(), stall

    async def __call__(self, kind: Kind, heard: Heard) -> None:
        async with self._turn:
            stall, self._stall = self._stall, 0.0
            heard.first, heard.steps_wanted = time.perf_counter(), 2
            heard.steps.update((1, 2))
            await asyncio.sleep(0.005 + stall)


def arrivals(count: int, gap: float) -> list[Arrival]:
    return [Arrival(gap * number, SMALL, number) for number in range(count)]


def test_a_server_that_stalls_shows_in_every_latency_behind_it() -> None:
    stall, gap = 0.3, 0.02
    samples = asyncio.run(open_loop(arrivals(10, gap), OneAtATime(stall)))
    for number, sample in enumerate(samples):
        assert sample.planned == pytest.approx(gap * number)
        assert sample.latency >= stall - gap * number
        assert sample.first is not None and sample.planned <= sample.first <= sample.ended


def test_what_is_sent_late_is_timed_from_when_it_was_planned() -> None:
    async def send(kind: Kind, heard: Heard) -> None:
        if not sent:
            sent.append(time.perf_counter())
            time.sleep(0.2)  # nothing else runs meanwhile, the loop that sends among it

    sent: list[float] = []
    first, second = asyncio.run(open_loop(arrivals(2, 0.01), send))
    assert first.latency >= 0.2
    assert second.planned == 0.01 and second.latency >= 0.18


class Counting:
    """Answers after some seconds, and counts the requests at once."""

    def __init__(self, seconds: float) -> None:
        self.most = self.running = 0
        self._seconds = seconds

    async def __call__(self, kind: Kind, heard: Heard) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        await asyncio.sleep(self._seconds)
        self.running -= 1


def test_arrivals_do_not_wait_for_answers() -> None:
    send = Counting(0.1)
    asyncio.run(open_loop(arrivals(8, 0.001), send))
    assert send.most == 8


def test_clients_of_a_closed_loop_have_one_request_each() -> None:
    send = Counting(0.01)
    samples = asyncio.run(closed_loop(3, 0.1, URGENT, send))
    assert send.most == 3 and send.running == 0
    assert 9 <= len(samples) <= 33
    assert {sample.kind for sample in samples} == {URGENT}
    assert all(sample.latency >= 0.01 and sample.planned < 0.1 for sample in samples)


def test_errors_are_samples_with_their_code_and_are_not_sent_again() -> None:
    calls: list[Kind] = []

    async def send(kind: Kind, heard: Heard) -> None:
        calls.append(kind)
        raise Busy("full") if len(calls) % 2 else NoFace("none")

    samples = asyncio.run(open_loop(arrivals(4, 0.001), send))
    assert [sample.code for sample in samples] == ["BUSY", "NO_FACE"] * 2
    assert len(calls) == 4 and {sample.first for sample in samples} == {None}


def test_a_client_that_is_refused_waits_as_it_is_told_to() -> None:
    async def send(kind: Kind, heard: Heard) -> None:
        raise Busy("full", retry_after=0.04)

    samples = asyncio.run(closed_loop(1, 0.1, SMALL, send))
    assert 2 <= len(samples) <= 3


def test_what_is_no_error_of_a_server_ends_the_load() -> None:
    async def send(kind: Kind, heard: Heard) -> None:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup):
        asyncio.run(open_loop(arrivals(2, 0.001), send))
