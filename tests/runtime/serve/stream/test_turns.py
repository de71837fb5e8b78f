"""The order of requests' parts, without a server and without a second thread."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from consisid_runtime.errors import Busy
from consisid_runtime.serve.stream.turns import Turns

Log = list[tuple[str, object]]


@dataclass
class Parts:
    """A job of so many parts; `on` is called in the part of a number, from 1."""

    name: str
    log: Log
    parts: int = 3
    urgent: bool = False
    left: float | None = None
    on: dict[int, Callable[[], object]] = field(default_factory=dict)
    gone: bool = False
    done: int = 0

    def part(self) -> bool:
        self.done += 1
        self.log.append((self.name, self.done))
        self.on.get(self.done, lambda: None)()
        return self.done < self.parts

    def waits(self, position: int, seconds: float | None) -> None:
        self.log.append((self.name, f"waits for {position}, {seconds} s"))

    def dropped(self) -> bool:
        return self.gone


def run(turns: Turns, log: Log, *jobs: Parts) -> Log:
    """What happens until the last of the jobs is done."""
    for job in jobs:
        turns.add(job)
    turns.add(Parts("end", [], parts=1, on={1: turns.close}))
    turns.run()
    return [entry for entry in log if entry[0] != "end"]


def test_who_comes_first_is_done_first() -> None:
    log: Log = []
    assert run(Turns(9), log, Parts("a", log, 2), Parts("b", log, 2)) == [
        ("b", "waits for 1, None s"),
        ("a", 1), ("a", 2), ("b", 1), ("b", 2),
    ]  # fmt: skip


def test_an_urgent_one_waits_for_one_part_alone_and_the_paused_one_goes_on_before_others() -> None:
    log: Log = []
    turns = Turns(9)
    urgent = Parts("urgent", log, 2, urgent=True)
    first = Parts("first", log, on={1: lambda: turns.add(urgent)})
    ran = run(turns, log, first, Parts("second", log, 1))
    assert [entry for entry in ran if isinstance(entry[1], int)] == [
        ("first", 1), ("urgent", 1), ("urgent", 2), ("first", 2), ("first", 3), ("second", 1),
    ]  # fmt: skip


def test_among_urgent_ones_who_comes_first_is_done_first() -> None:
    log: Log = []
    ran = run(Turns(9), log, *(Parts(name, log, 2, urgent=name != "c") for name in "cab"))
    assert [name for name, entry in ran if isinstance(entry, int)] == ["a", "a", "b", "b", "c", "c"]


def test_each_that_waits_is_told_how_many_are_before_it_when_that_changes() -> None:
    log: Log = []
    turns = Turns(9)
    urgent = Parts("u", log, 1, urgent=True)
    first = Parts("a", log, 2, left=4.0, on={1: lambda: turns.add(urgent)})
    assert run(turns, log, first, Parts("b", log, 1, left=1.0)) == [
        ("b", "waits for 1, 4.0 s"),
        ("a", 1),
        ("u", "waits for 1, 4.0 s"),
        ("b", "waits for 2, None s"),
        ("a", "waits for 1, None s"),
        ("u", 1),
        ("b", "waits for 1, 4.0 s"),
        ("a", 2),
        ("b", 1),
    ]


def test_one_that_is_paused_again_is_told_again() -> None:
    log: Log = []
    turns = Turns(9)
    urgent = [Parts(name, log, 1, urgent=True) for name in "uv"]
    first = Parts("a", log, 3, on={part: lambda job=job: turns.add(job) for part, job in enumerate(urgent, 1)})  # type: ignore[misc]
    assert [entry for entry in run(turns, log, first) if entry == ("a", "waits for 1, None s")] == 2 * [log[2]]


def test_one_that_waits_and_was_left_ends_without_a_part() -> None:
    log: Log = []
    now = [0.0]

    def leave() -> None:
        left.gone, now[0] = True, now[0] + 1

    left = Parts("left", log)
    ran = run(Turns(9, lambda: now[0]), log, Parts("a", log, on={1: leave}), left, Parts("b", log, 1))
    assert [entry for entry in ran if isinstance(entry[1], int)] == [("a", 1), ("a", 2), ("a", 3), ("b", 1)]


def test_more_than_it_takes_are_refused() -> None:
    turns = Turns(2)
    turns.add(Parts("a", []))
    turns.add(Parts("b", []))
    with pytest.raises(Busy, match="2 requests are here already"):
        turns.add(Parts("c", [], urgent=True))
