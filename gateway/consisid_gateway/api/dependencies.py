"""What every answer needs of its request. All are coroutines: FastAPI calls functions in threads, which costs more."""

from __future__ import annotations

import re
from typing import Annotated

from fastapi import Depends, Path, Query
from starlette.requests import Request

from consisid_gateway.access.authentication import caller_of
from consisid_gateway.access.caller import Caller
from consisid_gateway.api.parts import Parts
from consisid_gateway.api.reading.body import Bodies
from consisid_gateway.errors import VideoNotFound
from consisid_gateway.jobs.reading import Order, Paging

_ID = re.compile(r"[\w-]{1,64}", re.ASCII)


async def caller(request: Request) -> Caller:
    return caller_of(request)


async def parts_of(request: Request) -> Parts:
    return request.app.state.parts  # type: ignore[no-any-return]


async def bodies_of(request: Request) -> Bodies:
    return request.app.state.bodies  # type: ignore[no-any-return]


def subject(request: Request, name: str) -> None:
    """Tell those around the application what was created: the log of who did what names it."""
    request.scope.setdefault("state", {})["subject"] = name


def checked_id(text: str) -> str:
    """An id that there may be. Raises `VideoNotFound`: PostgreSQL would refuse some texts as such."""
    if not _ID.fullmatch(text):
        raise VideoNotFound(f"there is no {text[:80]!r}")
    return text


async def _video_id(video_id: Annotated[str, Path(description="as `create` answered it")]) -> str:
    return checked_id(video_id)


async def _character_id(character_id: Annotated[str, Path(description="as `create_character` answered it")]) -> str:
    return checked_id(character_id)


async def _paging(
    after: Annotated[str | None, Query(description="the last id of the page before")] = None,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    order: Annotated[Order, Query(description="by the time of creation")] = "desc",
) -> Paging:
    return Paging(None if after is None else checked_id(after), limit, order)


CallerOf = Annotated[Caller, Depends(caller)]
PartsOf = Annotated[Parts, Depends(parts_of)]
BodiesOf = Annotated[Bodies, Depends(bodies_of)]
VideoId = Annotated[str, Depends(_video_id)]
CharacterId = Annotated[str, Depends(_character_id)]
PagingOf = Annotated[Paging, Depends(_paging)]
