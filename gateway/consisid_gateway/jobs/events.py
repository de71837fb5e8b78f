"""What streams tell of jobs: events with numbers that grow, from any replica."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from consisid_gateway.jobs.database import now
from consisid_gateway.jobs.tables import events, jobs
from consisid_runtime.events import Event

_KEPT_SECONDS = 600.0


@dataclass(frozen=True, slots=True)
class Told:
    """An event and its number, which is unique within its job."""

    number: int
    event: Event


def since(connection: sa.Connection, last: Mapping[str, int]) -> dict[str, list[Told]]:
    """The events of several jobs behind the last one that each has told, in one statement."""
    if not last:
        return {}
    wanted = [sa.and_(events.c.job == job, events.c.number > number) for job, number in last.items()]
    chosen = sa.select(events).where(sa.or_(*wanted)).order_by(events.c.job, events.c.number)
    found: dict[str, list[Told]] = {}
    for row in connection.execute(chosen):
        found.setdefault(row.job, []).append(Told(row.number, Event.from_json(row.data, row.preview)))
    return found


def forget_old(connection: sa.Connection) -> None:
    """Of jobs that ended some minutes ago: a stream that was interrupted may be opened again until then."""
    told = sa.select(jobs.c.id).where(jobs.c.id.in_(sa.select(events.c.job).distinct()))
    connection.execute(
        sa.delete(events).where(events.c.job.in_(told.where(jobs.c.completed_at < now() - _KEPT_SECONDS)))
    )
