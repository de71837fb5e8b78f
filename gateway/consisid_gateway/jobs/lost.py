"""Jobs that are open, and that no worker is at: the queue and the rows differ after a process died between the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sqlalchemy as sa

from consisid_gateway.jobs import characters, workers
from consisid_gateway.jobs.job import OPEN, Status
from consisid_gateway.jobs.queue import FACES, Begun, Queue
from consisid_gateway.jobs.tables import characters as characters_table
from consisid_gateway.jobs.tables import jobs

_CLAIM_SECONDS = 5.0
"""After which a worker that began a workflow, and still lives, has claimed its job; else it never will."""


def gone(connection: sa.Connection, begun: Sequence[Begun]) -> list[Begun]:
    """What was begun by a worker that has ended, or that has never heard of it.

    A database that ended while it answered may have given a workflow to a worker that does not know.
    """
    alive = workers.alive(connection)
    late = [one.id for one in begun if one.worker in alive and one.queue != FACES and one.seconds > _CLAIM_SECONDS]
    statement = sa.select(jobs.c.id, jobs.c.worker).where(jobs.c.id.in_(late), jobs.c.status.in_(OPEN))
    owners: dict[str, str | None] = {row.id: row.worker for row in connection.execute(statement)} if late else {}
    return [one for one in begun if one.worker not in alive or owners.get(one.id, one.worker) != one.worker]


def running(connection: sa.Connection) -> dict[str, bool]:
    """Jobs whose worker has ended while it made their videos → whether they are urgent."""
    alive = workers.alive(connection)
    found = connection.execute(
        sa.select(jobs.c.id, jobs.c.urgent, jobs.c.worker).where(jobs.c.status == Status.RUNNING)
    )
    return {row.id: row.urgent for row in found if row.worker not in alive}


def waiting(connection: sa.Connection) -> tuple[dict[str, bool], list[str]]:
    """All jobs that have not ended → whether they are urgent; and all characters whose face was not read."""
    found = connection.execute(sa.select(jobs.c.id, jobs.c.urgent).where(jobs.c.status.in_(OPEN)))
    pending = sa.select(characters_table.c.id).where(characters_table.c.status == characters.Reading.PENDING)
    return {row.id: row.urgent for row in found}, list(connection.scalars(pending))


def put_again(connection: sa.Connection, queue: Queue, found: Mapping[str, bool], faces: Sequence[str]) -> None:
    """Into the queue, ahead of what waits there; those that have ended meanwhile end at once."""
    for job, urgent in found.items():
        queue.put(connection, job, urgent=urgent, again=True)
    for character in faces:
        queue.put_face(connection, character, again=True)
