"""A request becomes a job, once: first its object, then its row and its place in the queue."""

from __future__ import annotations

import hashlib
import json
import logging
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial

import sqlalchemy as sa
from anyio import fail_after, to_thread

from consisid_gateway.access.caller import Caller, Scope
from consisid_gateway.access.limits import require_room
from consisid_gateway.api.parts import Parts
from consisid_gateway.api.reading.asked import Asked
from consisid_gateway.api.reading.body import Bodies
from consisid_gateway.api.threads import beside, in_time, read
from consisid_gateway.errors import CharacterNotReady, StorageUnavailable
from consisid_gateway.jobs import characters, creation, reading
from consisid_gateway.jobs.creation import Wanted
from consisid_gateway.jobs.job import Job, new_id, prefix_of
from consisid_gateway.objects import names
from consisid_runtime.errors import ConsisIDError, HookFailed, ServerTimeout
from consisid_runtime.provenance.hooks import ConsentHook, check_consent

log = logging.getLogger(__name__)

_KEEP_SECONDS = 120.0
"""For the portrait and the transaction: more than S3 is given."""
Placed = tuple[Job, int | None]
"""A job, and how many are begun before it."""


async def accept(
    parts: Parts,
    bodies: Bodies,
    caller: Caller,
    asked: Asked,
    *,
    key: str | None,
    trace: str | None,
    source: Job | None = None,
) -> Placed:
    """The new job, or the one that the same request with the same idempotency key has made before; and its position.

    Args:
        key: the idempotency key.
        source: whose identity it has, in a remix.

    Raises `ScopeMissing` for a job that others are to wait for, `LimitReached`, `CharacterNotReady`, `VideoNotFound`,
    `VideoExpired` for a portrait that is deleted, `Busy` where there is no room for it, `IdempotencyConflict`,
    `ConsentRefused`, `HookFailed`, `ServerTimeout`, `StorageUnavailable`; nothing is kept then.
    """
    if asked.urgent:
        caller.require(Scope.URGENT)
    digest = _digest(asked, source)
    if key is not None:
        known = await read(parts.database, lambda connection: _repeated(connection, caller.tenant, key, digest))
        if known is not None:
            return known
    id = new_id("video")
    character = asked.character if source is None else source.character
    wanted = Wanted(
        id=id,
        tenant=caller.tenant,
        prompt=asked.prompt,
        options=asked.options,
        portrait=names.portrait_of(id),
        model=parts.model,
        urgent=bool(asked.urgent),
        character=character,
        remixed_from=None if source is None else source.id,
        webhook=asked.webhook,
        trace=trace,
        key=key,
        digest=digest,
    )
    async with _portrait(parts, bodies, caller, asked, source) as portrait:
        if parts.consent is not None:
            await _consented(parts, parts.consent, caller, portrait, asked)
        wanted = replace(wanted, portrait_bytes=len(portrait))
        return await in_time(partial(_keep, parts, caller, wanted, portrait), _KEEP_SECONDS)


def _repeated(connection: sa.Connection, tenant: str, key: str, digest: str) -> Placed | None:
    known = creation.repeated(connection, tenant, key, digest)
    return None if known is None else (known, reading.position(connection, known))


@asynccontextmanager
async def _portrait(
    parts: Parts, bodies: Bodies, caller: Caller, asked: Asked, source: Job | None
) -> AsyncIterator[bytes]:
    """The one that was sent, for which there is room already, or a stored one, for which there is within the block."""
    if asked.portrait is not None:
        yield asked.portrait
        return
    name = source.portrait if source is not None else await read(parts.database, partial(_of_character, caller, asked))
    size = await beside(lambda: parts.store.size(name))
    async with bodies.room(caller, size):
        yield await beside(lambda: parts.store.get(name))


def _of_character(caller: Caller, asked: Asked, connection: sa.Connection) -> str:
    assert asked.character is not None
    found = characters.get(connection, caller.tenant, asked.character)
    if found.status is characters.Reading.REFUSED:
        raise CharacterNotReady(f"the face of {found.id} was refused: {found.error_message}")
    return found.portrait


async def _consented(parts: Parts, hook: ConsentHook, caller: Caller, portrait: bytes, asked: Asked) -> None:
    """A function that never returns keeps its own place alone."""
    try:
        with fail_after(parts.consent_seconds):
            await to_thread.run_sync(
                lambda: _ask(hook, caller, portrait, asked), abandon_on_cancel=True, limiter=parts.consents
            )
    except TimeoutError:
        raise ServerTimeout(f"consent was not answered within {parts.consent_seconds:g} s") from None


def _ask(hook: ConsentHook, caller: Caller, portrait: bytes, asked: Asked) -> None:
    try:
        check_consent(hook, portrait, asked.prompt, asked.options, caller.tenant)
    except ConsisIDError:
        raise
    except Exception as error:  # whatever the operator's function raises
        reference = secrets.token_hex(4)
        log.error("error %s", reference, exc_info=error)
        raise HookFailed(f"consent could not be asked for; the gateway's log has it as error {reference}") from None


def _keep(parts: Parts, caller: Caller, wanted: Wanted, portrait: bytes) -> Placed:
    parts.store.put(wanted.portrait, portrait)
    try:
        try:
            job, position = _create(parts, caller, wanted)
        except sa.exc.IntegrityError:
            # Another request with the same key was faster: its job is found now.
            job, position = _create(parts, caller, wanted)
    except BaseException as error:
        if not (isinstance(error, StorageUnavailable) and error.unsure):  # else there may be a job that needs it
            _discard(parts, wanted)
        raise
    if job.id != wanted.id:
        _discard(parts, wanted)
    return job, position


def _create(parts: Parts, caller: Caller, wanted: Wanted) -> Placed:
    with parts.database.transaction() as connection:
        if wanted.key is None or not creation.repeated(connection, wanted.tenant, wanted.key, wanted.digest):
            require_room(connection, caller, stored_bytes=wanted.portrait_bytes)
            if wanted.character is not None and wanted.remixed_from is None:
                characters.use(connection, caller.tenant, wanted.character, parts.characters_kept_seconds)
        job = creation.create(connection, parts.queue, wanted)
        return job, reading.position(connection, job)


def _discard(parts: Parts, wanted: Wanted) -> None:
    try:
        parts.store.delete_all(prefix_of(wanted.id))
    except StorageUnavailable:
        log.warning("the portrait of %s, which was not accepted, could not be deleted", wanted.id)


def _digest(asked: Asked, source: Job | None) -> str:
    """Of everything that makes one request another one."""
    content = {
        "asked": [asked.prompt, asked.options.to_mapping(), asked.character, asked.webhook, bool(asked.urgent)],
        "portrait": None if asked.portrait is None else hashlib.sha256(asked.portrait).hexdigest(),
        "source": None if source is None else source.id,
    }
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
