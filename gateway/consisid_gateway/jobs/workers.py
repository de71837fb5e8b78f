"""Heartbeats, and who looks for jobs whose worker is gone.

A heartbeat is a row of its own: as an event of a durable workflow it would not be repeated when the workflow is
resumed, which would then look dead for ever.
"""

from __future__ import annotations

import sqlalchemy as sa

from consisid_gateway.jobs.database import insert_new, now
from consisid_gateway.jobs.tables import leases, workers

BEAT_SECONDS = 0.5
STALE_SECONDS = 2.5
_GAP_SECONDS = 1.5
_LEASE_SECONDS = 1.0
_FORGOTTEN_SECONDS = 3600.0
_LEADER = "leader"


def beat(connection: sa.Connection, worker: str, name: str, *, ready: bool) -> None:
    """It lives, and whether its server does; the first one makes it known. Its id is of this process alone."""
    values = {"beat_at": now(), "ready": ready}
    missed = sa.case((workers.c.beat_at < now() - _GAP_SECONDS, now()), else_=workers.c.steady_since)
    again = sa.update(workers).where(workers.c.id == worker).values(steady_since=missed, **values)
    if not connection.execute(again).rowcount:
        first = sa.insert(workers).values(id=worker, name=name, started_at=now(), steady_since=now(), **values)
        connection.execute(first)


def leave(connection: sa.Connection, worker: str) -> None:
    """It has ended: whatever it still owns may be taken over at once."""
    connection.execute(sa.delete(workers).where(workers.c.id == worker))


def alive(connection: sa.Connection) -> set[str]:
    """The workers that beat."""
    return set(connection.scalars(sa.select(workers.c.id).where(workers.c.beat_at >= now() - STALE_SECONDS)))


def steady(connection: sa.Connection) -> bool:
    """Whether a worker has beaten for as long as one that does not may take.

    Else the database was away, or all workers are new: who has not beaten may not have been able to.
    """
    beats = sa.and_(workers.c.beat_at >= now() - _GAP_SECONDS, workers.c.steady_since <= now() - STALE_SECONDS)
    return connection.scalar(sa.select(workers.c.id).where(beats).limit(1)) is not None


def lead(connection: sa.Connection, process: str) -> bool:
    """Whether this process is the one that looks after all jobs for the next second: two of its looks."""
    free = sa.or_(leases.c.worker == process, leases.c.until < now())
    values = {"worker": process, "until": now() + _LEASE_SECONDS}
    held = sa.update(leases).where(leases.c.name == _LEADER, free).values(values)
    if connection.execute(held).rowcount:
        return True
    insert_new(connection, leases, [{"name": _LEADER, "worker": "", "until": 0.0}])
    return False


def resign(connection: sa.Connection, process: str) -> None:
    """Another may lead at once."""
    connection.execute(sa.delete(leases).where(leases.c.name == _LEADER, leases.c.worker == process))


def ready(connection: sa.Connection) -> int:
    """Workers that beat, and whose servers answer."""
    alive = sa.and_(workers.c.beat_at >= now() - STALE_SECONDS, workers.c.ready)
    return connection.scalar(sa.select(sa.func.count()).select_from(workers).where(alive)) or 0


def forget_old(connection: sa.Connection) -> None:
    """Of workers that died without leaving."""
    connection.execute(sa.delete(workers).where(workers.c.beat_at < now() - _FORGOTTEN_SECONDS))
