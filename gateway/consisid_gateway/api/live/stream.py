"""What one caller is told of a job: server-sent events."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from contextlib import AbstractContextManager
from typing import Annotated, Any

import sqlalchemy as sa
from fastapi import APIRouter, Header
from pydantic import BaseModel
from sse_starlette import EventSourceResponse, ServerSentEvent
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as ScopeOf

from consisid_gateway.access.caller import Scope
from consisid_gateway.api.answers import Progress, Video, VideoDeleted
from consisid_gateway.api.dependencies import CallerOf, PartsOf, VideoId
from consisid_gateway.api.document import errors
from consisid_gateway.api.live.listening import Poller, State
from consisid_gateway.api.threads import read
from consisid_gateway.errors import VideoNotFound
from consisid_gateway.jobs import reading
from consisid_gateway.jobs.events import Told
from consisid_gateway.jobs.job import Status

router = APIRouter(tags=["videos"])
_END = "end"
"""The id of the last event, behind all numbers."""
_NUMBER = re.compile(r"\d{1,9}", re.ASCII)
_SEND_SECONDS = 30.0
"""After which a caller who does not read is left."""
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Events `state`, `progress`, and as the last one `completed`, `failed` or `deleted`.",
        "content": {"text/event-stream": {"schema": {"type": "string"}}},
    },
    204: {"description": "The caller has heard the last one: a browser asks no more."},
}


@router.get(
    "/v1/videos/{video_id}/events",
    operation_id="events",
    summary="What happens to a job, as server-sent events",
    response_class=Response,
    responses=_ANSWERS | errors(VideoNotFound),
)
async def follow(
    request: Request,
    video_id: VideoId,
    caller: CallerOf,
    parts: PartsOf,
    last: Annotated[
        str | None, Header(alias="Last-Event-ID", description="the id of the event that was heard last")
    ] = None,
) -> Response:
    caller.require(Scope.READ)

    def look(connection: sa.Connection) -> State:
        job = reading.get(connection, caller.tenant, video_id)
        return State(job, reading.position(connection, job))

    state = await read(parts.database, look)
    if state.over and last == _END:
        return Response(status_code=204)
    number = int(last) if last is not None and _NUMBER.fullmatch(last) else 0
    return _Stream(
        parts.listeners.one(caller),
        _told(request.app.state.poller, video_id, state, number),
        sep="\n",
        ping=parts.keep_alive_seconds,
        ping_message_factory=lambda: ServerSentEvent(comment="", sep="\n"),
        send_timeout=_SEND_SECONDS,
    )


class _Stream(EventSourceResponse):
    """Server-sent events within a block, whose errors are answered as such."""

    def __init__(
        self, held: AbstractContextManager[None], content: AsyncIterator[ServerSentEvent], **named: Any
    ) -> None:
        super().__init__(content, **named)
        self._held = held

    async def __call__(self, scope: ScopeOf, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


async def _told(poller: Poller, job: str, state: State, last: int) -> AsyncIterator[ServerSentEvent]:
    """The state as it is now, then what is new, until the job has ended."""
    assert state.job is not None
    yield _event("state", Video.of(state.job, state.position))
    with poller.listen(job, last, state) as listener:
        async for item in listener:
            if isinstance(item, Told):
                yield _event("progress", Progress.of(item), str(item.number))
            elif item.job is None:
                yield _event("deleted", VideoDeleted(id=job), _END)
                return
            elif item.over:
                name = "completed" if item.job.status is Status.COMPLETED else "failed"
                yield _event(name, Video.of(item.job), _END)
                return
            else:
                yield _event("state", Video.of(item.job, item.position))


def _event(name: str, data: BaseModel, number: str | None = None) -> ServerSentEvent:
    return ServerSentEvent(data.model_dump_json(), event=name, id=number, sep="\n")
