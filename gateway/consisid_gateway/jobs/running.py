"""What the worker that owns a job writes of it.

A worker owns a job from `claim` until the job ends or another worker claims it. Each statement here names the epoch of
its owner: a worker that was frozen and wakes up, and one whose job was cancelled or deleted, change nothing and raise
`NotOwner`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from consisid_gateway.jobs.database import now
from consisid_gateway.jobs.ending import orphan
from consisid_gateway.jobs.job import COLUMNS, OPEN, Job, Status, checkpoints_of
from consisid_gateway.jobs.tables import deliveries, events, jobs
from consisid_runtime.events import Event


class NotOwner(Exception):
    """The job was cancelled, deleted, or taken over by another worker: what this one computes of it is not wanted."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Of a job, from its claim on."""

    job: str
    worker: str
    epoch: int


def claim(connection: sa.Connection, job: str, worker: str) -> Job:
    """The job, now this worker's. Raises `NotOwner` for one that has ended or is no more."""
    statement = (
        sa.update(jobs)
        .where(jobs.c.id == job, jobs.c.status.in_(OPEN))
        .values(
            worker=worker,
            epoch=jobs.c.epoch + 1,
            status=Status.RUNNING,
            started_at=sa.func.coalesce(jobs.c.started_at, now()),
        )
        .returning(*COLUMNS)
    )
    row = connection.execute(statement).mappings().one_or_none()
    if row is None:
        raise NotOwner(job)
    return Job.of(row)


def ended(connection: sa.Connection, job: str) -> bool:
    """Whether nobody needs to make its video any more."""
    return connection.scalar(sa.select(jobs.c.id).where(jobs.c.id == job, jobs.c.status.in_(OPEN))) is None


def unwanted(connection: sa.Connection, job: str) -> bool:
    """Whether none of its objects is needed any more."""
    kept = jobs.c.gone.is_(False), jobs.c.error_code.is_(None)
    return connection.scalar(sa.select(jobs.c.id).where(jobs.c.id == job, *kept)) is None


def check(connection: sa.Connection, owner: Owner) -> None:
    """Raises `NotOwner`."""
    if connection.scalar(sa.select(jobs.c.id).where(_own(owner))) is None:
        raise NotOwner(owner.job)


def report(connection: sa.Connection, owner: Owner, news: Sequence[Event]) -> None:
    """Tell of events, in their order. Raises `NotOwner`."""
    if not news:
        return check(connection, owner)
    last = news[-1]
    values = {"stage": last.stage, "done": last.done, "total": last.total, "seconds_left": last.seconds_left}
    _change(connection, owner, values)
    first = connection.scalar(sa.select(sa.func.max(events.c.number)).where(events.c.job == owner.job)) or 0
    rows = [
        {"job": owner.job, "number": first + place, "data": event.to_json(), "preview": event.preview}
        for place, event in enumerate(news, 1)
    ]
    connection.execute(sa.insert(events), rows)
    return None


def keep_checkpoint(connection: sa.Connection, owner: Owner, key: str) -> str | None:
    """From now on a worker goes on from this object; returns that of the one before. Raises `NotOwner`.

    The ends of a server are counted from here again: it came further.
    """
    before = connection.scalar(sa.select(jobs.c.checkpoint).where(_own(owner)))
    _change(connection, owner, {"checkpoint": key, "attempts": 0})
    return before


def checkpoint_of(connection: sa.Connection, owner: Owner) -> str | None:
    """The key of the last checkpoint. Raises `NotOwner`."""
    row = connection.execute(sa.select(jobs.c.checkpoint).where(_own(owner))).one_or_none()
    if row is None:
        raise NotOwner(owner.job)
    return row.checkpoint  # type: ignore[no-any-return]


def count_attempt(connection: sa.Connection, owner: Owner) -> int:
    """The server ended while it made this video; returns how often so far. Raises `NotOwner`."""
    _change(connection, owner, {"attempts": jobs.c.attempts + 1})
    return connection.scalar(sa.select(jobs.c.attempts).where(_own(owner))) or 0


@dataclass(frozen=True, slots=True)
class Result:
    """Keys of a finished video's objects, its size, and its info."""

    video: str
    video_bytes: int
    thumbnail: str
    spritesheet: str
    info: Mapping[str, Any]


def complete(connection: sa.Connection, owner: Owner, result: Result, kept_seconds: float) -> Job:
    """Publish the video: the one moment in which it becomes visible. Raises `NotOwner`."""
    values = {
        "status": Status.COMPLETED,
        "completed_at": now(),
        "expires_at": now() + kept_seconds,
        "video": result.video,
        "video_bytes": result.video_bytes,
        "thumbnail": result.thumbnail,
        "spritesheet": result.spritesheet,
        "info": json.dumps(result.info),
        "checkpoint": None,
        "seconds_left": 0.0,
    }
    return _end(connection, owner, values)


def fail(connection: sa.Connection, owner: Owner, code: str, message: str, kept_seconds: float) -> Job:
    """The job has failed for good. Raises `NotOwner`."""
    values = {
        "status": Status.FAILED,
        "completed_at": now(),
        "expires_at": now() + kept_seconds,
        "error_code": code,
        "error_message": message,
        "checkpoint": None,
        "seconds_left": None,
    }
    return _end(connection, owner, values)


def _end(connection: sa.Connection, owner: Owner, values: Mapping[str, Any]) -> Job:
    _change(connection, owner, values)
    orphan(connection, [checkpoints_of(owner.job)])
    return Job.of(connection.execute(sa.select(*COLUMNS).where(jobs.c.id == owner.job)).mappings().one())


def announce(connection: sa.Connection, job: Job, body: str) -> None:
    """Have a webhook called, within the transaction that ends the job."""
    if job.webhook is not None:
        connection.execute(sa.insert(deliveries).values(job=job.id, url=job.webhook, body=body, next_at=now()))


def _change(connection: sa.Connection, owner: Owner, values: Mapping[str, Any]) -> None:
    if connection.execute(sa.update(jobs).where(_own(owner)).values(dict(values))).rowcount != 1:
        raise NotOwner(owner.job)


def _own(owner: Owner) -> sa.ColumnElement[bool]:
    own = (jobs.c.id == owner.job, jobs.c.epoch == owner.epoch, jobs.c.worker == owner.worker)
    return sa.and_(*own, jobs.c.status == Status.RUNNING)
