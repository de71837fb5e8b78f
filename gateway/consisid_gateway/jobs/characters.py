"""Characters: portraits with a name, whose face a worker reads once. Callers see those of their own tenant alone."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from consisid_gateway.errors import VideoNotFound
from consisid_gateway.jobs.database import now
from consisid_gateway.jobs.ending import orphan
from consisid_gateway.jobs.job import character_prefix
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.jobs.reading import Page, Paging, page_of
from consisid_gateway.jobs.tables import characters


class Reading(StrEnum):
    """How far a worker is with a portrait."""

    PENDING = "pending"
    READY = "ready"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Character:
    """A row. Times are seconds since 1970.

    Attributes:
        portrait: key of the object.
        face: what was read of the face, as `Identity.info`; None unless ready.
        error_code, error_message: why there is none; None unless refused.
    """

    id: str
    tenant: str
    name: str
    portrait: str
    status: Reading
    face: Mapping[str, Any] | None
    error_code: str | None
    error_message: str | None
    created_at: float
    expires_at: float | None

    @classmethod
    def of(cls, row: sa.RowMapping) -> Character:
        values = {field.name: row[field.name] for field in fields(cls)}
        face = values["face"]
        read = {"status": Reading(values["status"]), "face": None if face is None else json.loads(face)}
        return cls(**values | read)


def create(
    connection: sa.Connection,
    queue: Queue,
    id: str,
    tenant: str,
    name: str,
    portrait: str,
    portrait_bytes: int,
    kept_seconds: float,
) -> Character:
    """A new character, pending, and its place in the queue; its object is already stored.

    Args:
        kept_seconds: after which it expires, unless it is used.
    """
    values = {
        "id": id,
        "tenant": tenant,
        "name": name,
        "portrait": portrait,
        "portrait_bytes": portrait_bytes,
        "status": Reading.PENDING,
        "created_at": now(),
        "expires_at": now() + kept_seconds,
    }
    row = connection.execute(sa.insert(characters).values(values).returning(*characters.c)).mappings().one()
    queue.put_face(connection, id)
    return Character.of(row)


def get(connection: sa.Connection, tenant: str, id: str) -> Character:
    """Raises `VideoNotFound`, also for a character of another tenant."""
    own = sa.select(characters).where(characters.c.id == id, characters.c.tenant == tenant)
    row = connection.execute(own).mappings().one_or_none()
    if row is None:
        raise VideoNotFound(f"there is no character {id[:80]!r}")
    return Character.of(row)


def page(connection: sa.Connection, tenant: str, paging: Paging) -> Page[Character]:
    """A tenant's characters. Raises `VideoNotFound` for an unknown `after`."""
    last = None if paging.after is None else get(connection, tenant, paging.after)
    chosen = sa.select(characters).where(characters.c.tenant == tenant)
    place = None if last is None else (last.created_at, last.id)
    return page_of(connection, chosen, characters, Character.of, place, paging)


def delete(connection: sa.Connection, tenant: str, id: str) -> None:
    """Remove a character, and have its portrait removed; its videos stay. Raises `VideoNotFound`."""
    own = sa.and_(characters.c.id == id, characters.c.tenant == tenant)
    if connection.execute(sa.delete(characters).where(own)).rowcount != 1:
        raise VideoNotFound(f"there is no character {id[:80]!r}")
    orphan(connection, [character_prefix(id)])


def use(connection: sa.Connection, tenant: str, id: str, kept_seconds: float) -> None:
    """A video is made of it: it expires so long after this. Raises `VideoNotFound`."""
    own = sa.and_(characters.c.id == id, characters.c.tenant == tenant)
    if connection.execute(sa.update(characters).where(own).values(expires_at=now() + kept_seconds)).rowcount != 1:
        raise VideoNotFound(f"there is no character {id[:80]!r}")


def expire(connection: sa.Connection, most: int = 100) -> list[str]:
    """Remove those whose time has passed, and have their portraits removed; returns their ids."""
    due = characters.c.expires_at <= now()
    some = sa.select(characters.c.id).where(due).limit(most)
    # Looked at twice: one of them may have been used meanwhile.
    found = list(
        connection.scalars(sa.delete(characters).where(characters.c.id.in_(some), due).returning(characters.c.id))
    )
    if found:
        orphan(connection, [character_prefix(id) for id in found])
    return found


def pending(connection: sa.Connection, id: str) -> Character | None:
    """What a worker is to read; None for a character that was read before, or is no more."""
    chosen = sa.select(characters).where(characters.c.id == id, characters.c.status == Reading.PENDING)
    row = connection.execute(chosen).mappings().one_or_none()
    return None if row is None else Character.of(row)


def settle(connection: sa.Connection, id: str, face: Mapping[str, Any]) -> None:
    """The face was read. Changes nothing of a character that is not pending."""
    _settle(connection, id, {"status": Reading.READY, "face": json.dumps(face)})


def refuse(connection: sa.Connection, id: str, code: str, message: str) -> None:
    """There is no face to be read. Changes nothing of a character that is not pending."""
    _settle(connection, id, {"status": Reading.REFUSED, "error_code": code, "error_message": message})


def _settle(connection: sa.Connection, id: str, values: Mapping[str, Any]) -> None:
    open_ = sa.and_(characters.c.id == id, characters.c.status == Reading.PENDING)
    connection.execute(sa.update(characters).where(open_).values(dict(values)))
