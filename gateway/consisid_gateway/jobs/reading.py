"""Retrieve, list, count. Callers see the jobs of their own tenant alone."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Literal, TypeVar

import sqlalchemy as sa

from consisid_gateway.errors import VideoNotFound
from consisid_gateway.jobs.job import COLUMNS, OPEN, Job, Status
from consisid_gateway.jobs.tables import characters, jobs

Order = Literal["asc", "desc"]


_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Paging:
    """Which rows of a list: at most `limit`, by their time of creation, behind the one called `after`."""

    after: str | None = None
    limit: int = 20
    order: Order = "desc"


@dataclass(frozen=True, slots=True)
class Page(Generic[_T]):
    """Rows, and whether there are more behind them."""

    rows: Sequence[_T]
    has_more: bool


def get(connection: sa.Connection, tenant: str, job: str) -> Job:
    """Raises `VideoNotFound`, also for a job of another tenant."""
    found = sa.select(*COLUMNS).where(jobs.c.id == job, jobs.c.tenant == tenant)
    row = connection.execute(found).mappings().one_or_none()
    if row is None:
        raise VideoNotFound(f"there is no video {job[:80]!r}")
    return Job.of(row)


def page(connection: sa.Connection, tenant: str, paging: Paging) -> Page[Job]:
    """A tenant's jobs. Raises `VideoNotFound` for an unknown `after`."""
    last = None if paging.after is None else get(connection, tenant, paging.after)
    chosen = sa.select(*COLUMNS).where(jobs.c.tenant == tenant)
    return page_of(connection, chosen, jobs, Job.of, None if last is None else (last.created_at, last.id), paging)


def page_of(
    connection: sa.Connection,
    chosen: sa.Select[Any],
    table: sa.Table,
    read: Callable[[sa.RowMapping], _T],
    last: tuple[float, str] | None,
    paging: Paging,
) -> Page[_T]:
    """A page of the rows that are chosen from a table, behind the row with this time of creation and id."""
    ascending = paging.order == "asc"
    if last is not None:
        place, border = sa.tuple_(table.c.created_at, table.c.id), sa.tuple_(*map(sa.literal, last))
        chosen = chosen.where(place > border if ascending else place < border)
    towards = sa.asc if ascending else sa.desc
    chosen = chosen.order_by(towards(table.c.created_at), towards(table.c.id)).limit(paging.limit + 1)
    found = [read(row) for row in connection.execute(chosen).mappings()]
    return Page(found[: paging.limit], len(found) > paging.limit)


def position(connection: sa.Connection, job: Job) -> int | None:
    """Jobs that are begun before this one; None for one that does not wait."""
    if job.status is not Status.QUEUED:
        return None
    # By the index alone, which has no ids: of two that were created in one instant, both have the same position.
    waiting = sa.select(sa.func.count()).select_from(jobs).where(jobs.c.status == Status.QUEUED)
    same = waiting.where(jobs.c.urgent.is_(job.urgent), jobs.c.created_at < job.created_at).scalar_subquery()
    urgent = waiting.where(jobs.c.urgent.is_(True)).scalar_subquery()
    return connection.scalar(sa.select(same if job.urgent else same + urgent)) or 0


def several(connection: sa.Connection, names: Collection[str]) -> dict[str, Job]:
    """Those of these jobs that there are, whosever they are."""
    found = sa.select(*COLUMNS).where(jobs.c.id.in_(names))
    return {row["id"]: Job.of(row) for row in connection.execute(found).mappings()}


def positions(connection: sa.Connection, names: Collection[str]) -> dict[str, int]:
    """`position` of those of these jobs that wait."""
    order = (sa.desc(jobs.c.urgent), jobs.c.created_at, jobs.c.id)
    place = (sa.func.row_number().over(order_by=order) - 1).label("place")
    waiting = sa.select(jobs.c.id, place).where(jobs.c.status == Status.QUEUED).subquery()
    found = sa.select(waiting.c.id, waiting.c.place).where(waiting.c.id.in_(names))
    return {row.id: row.place for row in connection.execute(found)}


def usage(connection: sa.Connection, tenant: str) -> tuple[int, int]:
    """A tenant's jobs that have not ended, and the bytes of its videos and portraits."""
    own = jobs.c.tenant == tenant
    waiting = connection.scalar(sa.select(sa.func.count()).where(own, jobs.c.status.in_(OPEN))) or 0
    there = jobs.c.gone == sa.false()
    of_jobs = sa.select(sa.func.sum(jobs.c.video_bytes + jobs.c.portrait_bytes)).where(own, there)
    of_characters = sa.select(sa.func.sum(characters.c.portrait_bytes)).where(characters.c.tenant == tenant)
    return waiting, int(connection.scalar(of_jobs) or 0) + int(connection.scalar(of_characters) or 0)
