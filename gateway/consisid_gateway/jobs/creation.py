"""A job comes into being: its row and its place in the queue in one transaction."""

from __future__ import annotations

import json
from dataclasses import dataclass

import sqlalchemy as sa

from consisid_gateway.errors import IdempotencyConflict
from consisid_gateway.jobs.database import now
from consisid_gateway.jobs.job import COLUMNS, Job, Status
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.jobs.tables import idempotency, jobs
from consisid_runtime.options import Options

_KEY_SECONDS = 86400.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a caller asks for, with its objects already stored.

    Attributes:
        id: of the job.
        portrait: key of the object.
        key, digest: the idempotency key and the digest of the request; None without.
    """

    id: str
    tenant: str
    prompt: str
    options: Options
    portrait: str
    model: str
    portrait_bytes: int = 0
    urgent: bool = False
    character: str | None = None
    remixed_from: str | None = None
    webhook: str | None = None
    trace: str | None = None
    key: str | None = None
    digest: str | None = None


def create(connection: sa.Connection, queue: Queue, wanted: Wanted) -> Job:
    """The new job; or, for an idempotency key that was used before for the same request, the job of that time.

    Raises `IdempotencyConflict`. Two requests with one key at once: the second raises `IntegrityError`, and finds the
    job of the first when it is tried again.
    """
    if wanted.key is not None and (found := repeated(connection, wanted.tenant, wanted.key, wanted.digest)):
        return found
    values = {
        "id": wanted.id,
        "tenant": wanted.tenant,
        "status": Status.QUEUED,
        "urgent": wanted.urgent,
        "model": wanted.model,
        "prompt": wanted.prompt,
        "options": json.dumps(wanted.options.to_mapping()),
        "portrait": wanted.portrait,
        "portrait_bytes": wanted.portrait_bytes,
        "character": wanted.character,
        "remixed_from": wanted.remixed_from,
        "webhook": wanted.webhook,
        "trace": wanted.trace,
        "created_at": now(),
    }
    row = connection.execute(sa.insert(jobs).values(values).returning(*COLUMNS)).mappings().one()
    if wanted.key is not None:
        connection.execute(
            sa.insert(idempotency).values(
                tenant=wanted.tenant, key=wanted.key, digest=wanted.digest, job=wanted.id, created_at=now()
            )
        )
    queue.put(connection, wanted.id, urgent=wanted.urgent)
    return Job.of(row)


def forget_old_keys(connection: sa.Connection) -> None:
    """Idempotency keys are remembered for a day."""
    connection.execute(sa.delete(idempotency).where(idempotency.c.created_at < now() - _KEY_SECONDS))


def repeated(connection: sa.Connection, tenant: str, key: str, digest: str | None) -> Job | None:
    """The job that an idempotency key stands for. Raises `IdempotencyConflict` where the request was another one."""
    of_key = sa.select(idempotency.c.digest, idempotency.c.job).where(
        idempotency.c.tenant == tenant, idempotency.c.key == key
    )
    known = connection.execute(of_key).one_or_none()
    if known is None:
        return None
    if known.digest != digest:
        raise IdempotencyConflict(f"the key {key!r} was used for another request")
    row = connection.execute(sa.select(*COLUMNS).where(jobs.c.id == known.job)).mappings().one_or_none()
    return None if row is None else Job.of(row)
