"""Webhooks that are still to be called. Their rows are written by `running.announce`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import sqlalchemy as sa

from consisid_gateway.jobs.database import now
from consisid_gateway.jobs.tables import deliveries

_KEPT_SECONDS = 7 * 86400.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """A call of a webhook.

    Attributes:
        attempts: before this one.
    """

    job: str
    url: str
    body: str
    attempts: int


def take(connection: sa.Connection, seconds: float, others: Collection[str] = ()) -> Delivery | None:
    """One that is due, which no other worker takes within so many seconds; None where there is none.

    Those that were tried less go first: who never answers does not delay who was not called yet.

    Args:
        others: beginnings of URLs, of whose deliveries none is taken.
    """
    due = deliveries.c.next_at <= now(), *(~deliveries.c.url.startswith(url, autoescape=True) for url in others)
    first = sa.select(deliveries).where(*due).order_by(deliveries.c.attempts, deliveries.c.next_at).limit(1)
    row = connection.execute(first.with_for_update(skip_locked=True)).one_or_none()
    if row is None:
        return None
    _set(connection, row.job, {"next_at": now() + seconds})
    return Delivery(row.job, row.url, row.body, row.attempts)


def delivered(connection: sa.Connection, delivery: Delivery) -> None:
    """It was received."""
    values = {"attempts": delivery.attempts + 1, "delivered_at": now(), "next_at": None}
    _set(connection, delivery.job, values)


def failed(connection: sa.Connection, delivery: Delivery, pause: float | None) -> None:
    """It was not received: it is tried again after `pause` seconds; None gives it up."""
    again = {"next_at": None, "failed_at": now()} if pause is None else {"next_at": now() + pause}
    _set(connection, delivery.job, {"attempts": delivery.attempts + 1, **again})


def forget_old(connection: sa.Connection) -> None:
    """Of those that are done with, and of those that no worker has taken: none has a secret to sign with."""
    last = sa.func.coalesce(deliveries.c.delivered_at, deliveries.c.failed_at, deliveries.c.next_at)
    connection.execute(sa.delete(deliveries).where(last < now() - _KEPT_SECONDS))


def _set(connection: sa.Connection, job: str, values: dict[str, object]) -> None:
    connection.execute(sa.update(deliveries).where(deliveries.c.job == job).values(values))
