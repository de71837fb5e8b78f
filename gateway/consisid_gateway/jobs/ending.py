"""Cancel, delete, expire. A worker that computes for such a job finds that it is no longer its owner, and stops."""

from __future__ import annotations

from collections.abc import Sequence

import sqlalchemy as sa

from consisid_gateway.errors import VideoNotFound
from consisid_gateway.jobs.database import insert_new, now
from consisid_gateway.jobs.job import IDS, OPEN, Job, Status, prefix_of
from consisid_gateway.jobs.reading import get
from consisid_gateway.jobs.tables import characters, deliveries, events, idempotency, jobs, orphans
from consisid_runtime.errors import RequestCancelled

_AT_ONCE = 500
"""Ids in one statement."""


def cancel(connection: sa.Connection, tenant: str, job: str) -> Job:
    """End a job that has not ended, as failed with the code of `RequestCancelled`; nothing of it is kept.

    Idempotent. Raises `VideoNotFound`.
    """
    get(connection, tenant, job)
    connection.execute(
        sa.update(jobs)
        .where(jobs.c.id == job, jobs.c.tenant == tenant, jobs.c.status.in_(OPEN))
        .values(
            status=Status.FAILED,
            completed_at=now(),
            expires_at=now(),
            error_code=RequestCancelled.code,
            error_message="the video was cancelled",
            checkpoint=None,
            seconds_left=None,
        )
    )
    return get(connection, tenant, job)


def delete(connection: sa.Connection, tenant: str, job: str) -> None:
    """Remove a job, whatever its state, and have its objects removed. Raises `VideoNotFound`."""
    own = sa.and_(jobs.c.id == job, jobs.c.tenant == tenant)
    if connection.execute(sa.delete(jobs).where(own)).rowcount != 1:
        raise VideoNotFound(f"there is no video {job[:80]!r}")
    _drop(connection, [job])


def expire(connection: sa.Connection, most: int = 100) -> list[str]:
    """Have the objects of jobs removed whose time has passed; returns these jobs, whose rows stay.

    Only one process may at a time.
    """
    due = sa.select(jobs.c.id).where(jobs.c.expires_at <= now(), jobs.c.gone.is_(False)).limit(most)
    found = list(connection.scalars(due))
    if found:
        gone = {"video": None, "video_bytes": 0, "thumbnail": None, "spritesheet": None}
        gone |= {"portrait_bytes": 0, "gone": True}
        connection.execute(sa.update(jobs).where(jobs.c.id.in_(found)).values(gone))
        orphan(connection, [prefix_of(job) for job in found])
    return found


def orphan(connection: sa.Connection, prefixes: Sequence[str]) -> None:
    """Have objects deleted. Idempotent."""
    insert_new(connection, orphans, [{"prefix": prefix} for prefix in prefixes])


def orphaned(connection: sa.Connection, most: int = 100) -> list[str]:
    """Some prefixes of objects to be deleted, in no order; `removed` afterwards."""
    return list(connection.scalars(sa.select(orphans.c.prefix).order_by(sa.func.random()).limit(most)))


def strange(connection: sa.Connection, prefixes: Sequence[str]) -> list[str]:
    """Those that are of no character, and of no job whose objects are kept; no prefix that is none of ours.

    Of a request whose process ended before its row was there, or of a worker that wrote behind the removal.
    """
    names = {name: prefix for prefix in prefixes if (name := whole(prefix)) and IDS.fullmatch(name)}
    known: set[str] = set()
    for start in range(0, len(names), _AT_ONCE):
        some = list(names)[start : start + _AT_ONCE]
        known |= set(connection.scalars(sa.select(jobs.c.id).where(jobs.c.id.in_(some), jobs.c.gone.is_(False))))
        known |= set(connection.scalars(sa.select(characters.c.id).where(characters.c.id.in_(some))))
    return [prefix for name, prefix in names.items() if name not in known]


def whole(prefix: str) -> str | None:
    """The job, or the character, all of whose objects have this prefix."""
    parts = prefix.strip("/").split("/")
    return parts[1] if len(parts) == 2 else None


def removed(connection: sa.Connection, prefix: str) -> None:
    connection.execute(sa.delete(orphans).where(orphans.c.prefix == prefix))


def _drop(connection: sa.Connection, found: Sequence[str]) -> None:
    for table in (events, deliveries, idempotency):
        connection.execute(sa.delete(table).where(table.c.job.in_(found)))
    orphan(connection, [prefix_of(job) for job in found])
