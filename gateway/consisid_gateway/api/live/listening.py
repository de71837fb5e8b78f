"""One look at the database for all jobs that somebody listens to, as long as somebody does."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial

import sqlalchemy as sa

from consisid_gateway.api.threads import read
from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs import events, reading
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.events import Told
from consisid_gateway.jobs.job import OPEN, Job, Status

log = logging.getLogger(__name__)
_INTERVAL, _POSITIONS_INTERVAL, _AWAY_INTERVAL = 0.1, 0.5, 1.0
"""Seconds between two looks; at positions, which change with every job that others create; at a database that is away.
"""
_MOST = 64
"""Items that are kept for a caller who reads slowly; what happens later is read again when he has taken some."""
_AT_ONCE = 200
"""Jobs in one statement; SQLite bounds how many terms a condition has."""


@dataclass(frozen=True, slots=True)
class State:
    """The job is as it is now. The last item of one that has ended, or is no more, where `job` is None."""

    job: Job | None
    position: int | None = None

    @property
    def over(self) -> bool:
        return self.job is None or self.job.status not in OPEN


class Listener:
    """Who listens to one job. An iterator of its events and states in their order; it ends when the job does.

    Args:
        last: number of the event that was told last.
        state: that was told already.
    """

    def __init__(self, job: str, last: int, state: State) -> None:
        self.job, self.last = job, last
        self._items = deque[Told | State]()
        self._told, self._over = _key(state), False
        self._news = asyncio.Event()

    @property
    def full(self) -> bool:
        return len(self._items) >= _MOST

    def offer(self, state: State, told: Sequence[Told]) -> None:
        """What was found in one look. What does not fit, or is new since, is offered again by the next one."""
        unplaced = state.job is not None and state.job.status is Status.QUEUED and state.position is None
        if not (state.over or self.full or unplaced or _key(state) == self._told):
            self._items.append(state)
            self._told = _key(state)
        for each in told:
            if each.number > self.last and not self.full:
                self._items.append(each)
                self.last = each.number
        if state.over and not (self._over or self.full) and all(each.number <= self.last for each in told):
            self._items.append(state)
            self._over = True
        self._news.set()

    def __aiter__(self) -> Listener:
        return self

    async def __anext__(self) -> Told | State:
        while not self._items:
            self._news.clear()
            await self._news.wait()
        return self._items.popleft()


class Poller:
    """Of one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._listeners: set[Listener] = set()
        self._task: asyncio.Task[None] | None = None
        self._positions: Mapping[str, int] = {}  # of the jobs that waited at the last look at them
        self._positions_until = 0.0

    @contextmanager
    def listen(self, job: str, last: int, state: State) -> Iterator[Listener]:
        """Events of a job after the one with the number `last`, and its states after `state`."""
        listener = Listener(job, last, state)
        self._listeners.add(listener)
        if self._task is None:
            self._task = asyncio.create_task(self._run())
        try:
            yield listener
        finally:
            self._listeners.discard(listener)

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self) -> None:
        while self._listeners:
            pause = _INTERVAL
            try:
                await self._look()
            except StorageUnavailable as error:
                log.warning("%s", error)
                pause = _AWAY_INTERVAL
            except Exception:  # the streams would stand still for ever
                log.exception("a look at the jobs failed")
                pause = _AWAY_INTERVAL
            await asyncio.sleep(pause)
        self._task = None

    async def _look(self) -> None:
        listeners = [each for each in self._listeners if not each.full]
        last: dict[str, int] = {}
        for each in listeners:
            last[each.job] = min(each.last, last.get(each.job, each.last))
        names = list(last)
        due = time.monotonic() >= self._positions_until
        fresh: dict[str, int] = {}
        for start in range(0, len(names), _AT_ONCE):
            wanted = {name: last[name] for name in names[start : start + _AT_ONCE]}
            found = await read(self._database, partial(_find, wanted=wanted, places=due))
            fresh |= found.positions
            positions = fresh if due else self._positions
            for each in listeners:
                if each.job in wanted:
                    each.offer(_state(found.jobs.get(each.job), positions), found.told.get(each.job, ()))
        if due:
            self._positions, self._positions_until = fresh, time.monotonic() + _POSITIONS_INTERVAL


@dataclass(frozen=True, slots=True)
class _Found:
    jobs: Mapping[str, Job]
    told: Mapping[str, Sequence[Told]]
    positions: Mapping[str, int]


def _find(connection: sa.Connection, wanted: Mapping[str, int], places: bool) -> _Found:
    # First the states: of a job that has ended by then, all events are found after.
    jobs = reading.several(connection, wanted.keys())
    waiting = [job.id for job in jobs.values() if job.status is Status.QUEUED] if places else []
    positions = reading.positions(connection, waiting) if waiting else {}
    return _Found(jobs, events.since(connection, wanted), positions)


def _state(job: Job | None, positions: Mapping[str, int]) -> State:
    return State(job, None if job is None or job.status is not Status.QUEUED else positions.get(job.id))


def _key(state: State) -> tuple[str, int | None]:
    return ("deleted", None) if state.job is None else (state.job.status, state.position)
