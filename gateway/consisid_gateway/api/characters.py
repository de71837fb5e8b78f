"""Portraits with a name: create, list, retrieve, delete."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

from fastapi import APIRouter
from starlette.requests import Request

from consisid_gateway.access.caller import Caller, Scope
from consisid_gateway.access.limits import require_room
from consisid_gateway.api.answers import Character, CharacterDeleted, Characters
from consisid_gateway.api.dependencies import BodiesOf, CallerOf, CharacterId, PagingOf, PartsOf, subject
from consisid_gateway.api.document import OF_BODIES, OF_PORTRAITS, body, errors
from consisid_gateway.api.failures import of_field
from consisid_gateway.api.parts import Parts
from consisid_gateway.api.reading import fields
from consisid_gateway.api.reading.body import Fields
from consisid_gateway.api.reading.portrait import portrait_of
from consisid_gateway.api.threads import beside, read, write
from consisid_gateway.errors import StorageUnavailable, VideoNotFound
from consisid_gateway.jobs import characters
from consisid_gateway.jobs.characters import Reading
from consisid_gateway.jobs.job import character_prefix, new_id
from consisid_gateway.objects import names
from consisid_runtime.errors import FaceIndexOutOfRange, InvalidOption, MultipleFaces, NoFace, from_wire

log = logging.getLogger(__name__)
router = APIRouter(tags=["characters"])
_KNOWN = ("name", "video")
_MOST_NAME = 256
_INTERVAL = 0.05
"""Seconds between two looks at whether a face was read."""


@router.post(
    "/v1/videos/characters",
    operation_id="create_character",
    summary="Keep a portrait under a name; answers when its face was read, or is still to be read",
    # Not found: deleted while its face was read.
    responses=errors(*OF_BODIES, *OF_PORTRAITS, NoFace, MultipleFaces, FaceIndexOutOfRange, VideoNotFound),
    openapi_extra=body(_KNOWN, _KNOWN, file="video"),
)
async def create(request: Request, caller: CallerOf, parts: PartsOf, bodies: BodiesOf) -> Character:
    caller.require(Scope.CHARACTERS)
    async with bodies.read(request, caller) as given:
        name, portrait = await beside(lambda: _asked(given, parts.upload_bytes))
        made = await beside(lambda: _keep(parts, caller, name, portrait))
    subject(request, made.id)
    known = await _read(parts, caller, made)
    if known.status is Reading.REFUSED:
        await write(parts.database, lambda connection: characters.delete(connection, caller.tenant, known.id))
        raise from_wire(f"{known.error_code}: {known.error_message}")
    return Character.of(known)


@router.get(
    "/v1/videos/characters",
    operation_id="list_characters",
    summary="The caller's characters, a page at a time",
    responses=errors(InvalidOption, VideoNotFound),
)
async def page(caller: CallerOf, parts: PartsOf, paging: PagingOf) -> Characters:
    caller.require(Scope.READ)
    found = await read(parts.database, lambda connection: characters.page(connection, caller.tenant, paging))
    return Characters.of([Character.of(row) for row in found.rows], has_more=found.has_more)


@router.get(
    "/v1/videos/characters/{character_id}",
    operation_id="get_character",
    summary="A character and its face",
    responses=errors(VideoNotFound),
)
async def retrieve(character_id: CharacterId, caller: CallerOf, parts: PartsOf) -> Character:
    caller.require(Scope.READ)
    found = await read(parts.database, lambda connection: characters.get(connection, caller.tenant, character_id))
    return Character.of(found)


@router.delete(
    "/v1/videos/characters/{character_id}",
    operation_id="delete_character",
    summary="Remove a character and its portrait; its videos stay",
    responses=errors(VideoNotFound),
)
async def delete(character_id: CharacterId, caller: CallerOf, parts: PartsOf) -> CharacterDeleted:
    caller.require(Scope.CHARACTERS)
    await write(parts.database, lambda connection: characters.delete(connection, caller.tenant, character_id))
    await beside(lambda: parts.queue.forget([character_id]))
    return CharacterDeleted(id=character_id)


async def _read(parts: Parts, caller: Caller, made: characters.Character) -> characters.Character:
    """The character when a worker has read its face, or after a while as it is."""
    end = time.monotonic() + parts.character_seconds
    found = made
    while found.status is Reading.PENDING and time.monotonic() < end:
        await asyncio.sleep(_INTERVAL)
        found = await read(parts.database, lambda connection: characters.get(connection, caller.tenant, made.id))
    return found


def _asked(given: Fields, upload_bytes: int) -> tuple[str, bytes]:
    """The name and the portrait. Raises `FieldRefused`."""
    for name in given:
        with of_field(name[:80]):
            fields.require_known([name], _KNOWN)
    with of_field("name"):
        called = fields.text("name", given.get("name"), _MOST_NAME)
    with of_field("video"):
        picture: Any = given.get("video")
        if picture is None:
            raise InvalidOption("video is missing; send the portrait, an image file, as this field")
        return called, portrait_of("video", picture, upload_bytes)


def _keep(parts: Parts, caller: Caller, name: str, portrait: bytes) -> characters.Character:
    id = new_id("char")
    key = names.portrait_of_character(id)
    parts.store.put(key, portrait)
    try:
        with parts.database.transaction() as connection:
            require_room(connection, caller, jobs=0, stored_bytes=len(portrait))
            kept = parts.characters_kept_seconds
            return characters.create(connection, parts.queue, id, caller.tenant, name, key, len(portrait), kept)
    except BaseException as error:
        if not (isinstance(error, StorageUnavailable) and error.unsure):  # else there may be a character that needs it
            _discard(parts, id)
        raise


def _discard(parts: Parts, id: str) -> None:
    try:
        parts.store.delete_all(character_prefix(id))
    except StorageUnavailable:
        log.warning("the portrait of %s, which was not accepted, could not be deleted", id)
