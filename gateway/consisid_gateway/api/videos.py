"""Create, remix, list, retrieve, cancel, delete."""

from __future__ import annotations

import logging
from typing import Annotated

import sqlalchemy as sa
from fastapi import APIRouter, Header
from starlette.requests import Request
from starlette.responses import Response

from consisid_gateway import addresses
from consisid_gateway.access.caller import Scope
from consisid_gateway.api.accepting import accept
from consisid_gateway.api.answers import Video, VideoDeleted, Videos
from consisid_gateway.api.dependencies import BodiesOf, CallerOf, PagingOf, PartsOf, VideoId, checked_id, subject
from consisid_gateway.api.document import OF_BODIES, OF_PORTRAITS, OF_PROMPTS, POLL, Responses, body, errors
from consisid_gateway.api.failures import of_field
from consisid_gateway.api.parts import Parts
from consisid_gateway.api.reading.asked import KNOWN, OF_REMIX, Asked, asked, asked_of_remix
from consisid_gateway.api.threads import beside, read, write
from consisid_gateway.errors import AddressRefused, CharacterNotReady, IdempotencyConflict, VideoExpired, VideoNotFound
from consisid_gateway.jobs import ending, reading
from consisid_gateway.jobs.job import OPEN, Job
from consisid_gateway.watch.traces import traceparent
from consisid_runtime.errors import ConsentRefused, HookFailed, InvalidOption, ServerTimeout

log = logging.getLogger(__name__)
router = APIRouter(tags=["videos"])

Key = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        pattern=r"^[\x21-\x7e]{1,255}$",
        description="the same request with the same key makes one job, however often it is sent",
    ),
]
_LEAST_POLL, _USUAL_POLL, _MOST_POLL = 200, 1000, 5000
"""Milliseconds."""
_MAKES = OF_BODIES + OF_PROMPTS + (IdempotencyConflict, AddressRefused, ConsentRefused, HookFailed, ServerTimeout)
_ONE: Responses = {200: {"headers": POLL}}


@router.post(
    "/v1/videos",
    operation_id="create",
    summary="Have a video made of a portrait, or of a character",
    responses=_ONE | errors(*_MAKES, *OF_PORTRAITS, CharacterNotReady, VideoNotFound, VideoExpired),
    openapi_extra=body(KNOWN, ["prompt"], file="input_reference"),
)
async def create(
    request: Request, response: Response, caller: CallerOf, parts: PartsOf, bodies: BodiesOf, key: Key = None
) -> Video:
    caller.require(Scope.WRITE)
    async with bodies.read(request, caller) as given:
        wanted = await beside(lambda: asked(given, model=parts.model, upload_bytes=parts.upload_bytes))
        if wanted.character is not None:
            checked_id(wanted.character)
        await _check_webhook(parts, wanted)
        job, position = await accept(parts, bodies, caller, wanted, key=key, trace=traceparent(request))
    subject(request, job.id)
    _poll(response, job)
    return Video.of(job, position)


@router.post(
    "/v1/videos/{video_id}/remix",
    operation_id="remix",
    summary="The same identity, options and seed with another prompt",
    responses=_ONE | errors(*_MAKES, VideoNotFound, VideoExpired),
    openapi_extra=body(OF_REMIX, ["prompt"]),
)
async def remix(
    request: Request,
    response: Response,
    video_id: VideoId,
    caller: CallerOf,
    parts: PartsOf,
    bodies: BodiesOf,
    key: Key = None,
) -> Video:
    caller.require(Scope.WRITE)
    async with bodies.read(request, caller) as given:
        source = await read(parts.database, lambda connection: reading.get(connection, caller.tenant, video_id))
        wanted = asked_of_remix(given, source.request)
    await _check_webhook(parts, wanted)
    job, position = await accept(parts, bodies, caller, wanted, key=key, trace=traceparent(request), source=source)
    subject(request, job.id)
    _poll(response, job)
    return Video.of(job, position)


@router.get(
    "/v1/videos",
    operation_id="list",
    summary="The caller's videos, a page at a time",
    responses=errors(InvalidOption, VideoNotFound),
)
async def page(caller: CallerOf, parts: PartsOf, paging: PagingOf) -> Videos:
    caller.require(Scope.READ)
    found = await read(parts.database, lambda connection: reading.page(connection, caller.tenant, paging))
    return Videos.of([Video.of(job) for job in found.rows], has_more=found.has_more)


@router.get(
    "/v1/videos/{video_id}",
    operation_id="retrieve",
    summary="A video and how far its job is",
    responses=_ONE | errors(VideoNotFound),
)
async def retrieve(video_id: VideoId, response: Response, caller: CallerOf, parts: PartsOf) -> Video:
    caller.require(Scope.READ)

    def look(connection: sa.Connection) -> tuple[Job, int | None]:
        job = reading.get(connection, caller.tenant, video_id)
        return job, reading.position(connection, job)

    job, position = await read(parts.database, look)
    _poll(response, job)
    return Video.of(job, position)


@router.post(
    "/v1/videos/{video_id}/cancel",
    operation_id="cancel",
    summary="End a job that has not ended; its device is free within one step",
    responses=errors(VideoNotFound),
)
async def cancel(video_id: VideoId, caller: CallerOf, parts: PartsOf) -> Video:
    caller.require(Scope.WRITE)
    return Video.of(await write(parts.database, lambda connection: ending.cancel(connection, caller.tenant, video_id)))


@router.delete(
    "/v1/videos/{video_id}",
    operation_id="delete",
    summary="Remove a video, its portrait and its bytes; a job that runs ends within one step",
    responses=errors(VideoNotFound),
)
async def delete(video_id: VideoId, caller: CallerOf, parts: PartsOf) -> VideoDeleted:
    caller.require(Scope.WRITE)
    await write(parts.database, lambda connection: ending.delete(connection, caller.tenant, video_id))
    await beside(lambda: parts.queue.forget([video_id]))
    return VideoDeleted(id=video_id)


async def _check_webhook(parts: Parts, wanted: Asked) -> None:
    if wanted.webhook is not None:
        address = wanted.webhook
        with of_field("webhook"):
            await beside(lambda: addresses.check(address, private=parts.private_webhooks))


def _poll(response: Response, job: Job) -> None:
    if job.status in OPEN:
        left = job.seconds_left
        after = _USUAL_POLL if left is None else int(min(_MOST_POLL, max(_LEAST_POLL, left * 1000)))
        response.headers["openai-poll-after-ms"] = str(after)
