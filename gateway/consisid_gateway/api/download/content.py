"""The bytes of a video, its thumbnail and its spritesheet: from the store in pieces, whole or a range."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import PurePosixPath
from typing import Annotated, Literal

from fastapi import APIRouter, Query
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from consisid_gateway.access.caller import Scope
from consisid_gateway.api.dependencies import CallerOf, PartsOf, VideoId
from consisid_gateway.api.document import BYTES, errors
from consisid_gateway.api.download.ranges import Part, Unsatisfiable, wanted
from consisid_gateway.api.threads import beside, read
from consisid_gateway.errors import RangeRefused, VideoExpired, VideoNotFound, VideoNotReady
from consisid_gateway.jobs import reading
from consisid_gateway.jobs.job import Job, Status
from consisid_gateway.objects.store import Store
from consisid_runtime.errors import InvalidOption

router = APIRouter()
Variant = Literal["video", "thumbnail", "spritesheet"]
_PIECE = 2**18
_TYPES = {".mp4": "video/mp4", ".jpg": "image/jpeg"}


_ANSWERS = BYTES | errors(VideoNotFound, VideoNotReady, VideoExpired, InvalidOption, RangeRefused)


@router.head(
    "/v1/videos/{video_id}/content",
    operation_id="describe_content",
    tags=["videos"],
    summary="What a download would begin with",
    response_class=Response,
    responses=_ANSWERS,
)
@router.get(
    "/v1/videos/{video_id}/content",
    operation_id="download_content",
    tags=["videos"],
    summary="The video's bytes, its thumbnail's, or those of a sheet of up to sixteen frames",
    response_class=Response,
    responses=_ANSWERS,
)
async def download(
    request: Request,
    video_id: VideoId,
    caller: CallerOf,
    parts: PartsOf,
    variant: Annotated[Variant, Query()] = "video",
) -> Response:
    caller.require(Scope.READ)
    job = await read(parts.database, lambda connection: reading.get(connection, caller.tenant, video_id))
    key = _key(job, variant)
    size = await beside(lambda: parts.store.size(key))
    name = PurePosixPath(key)
    headers = {
        "ETag": f'"{name.stem}"',
        "Accept-Ranges": "bytes",
        # Whoever may see it may keep it; it never changes, and must not be kept for others.
        "Cache-Control": "private, max-age=3600",
        "Content-Disposition": f'inline; filename="{job.id}{"" if variant == "video" else "-" + variant}{name.suffix}"',
    }
    part = wanted(request.headers, size, headers["ETag"])
    if part is None:
        return Response(status_code=304, headers=headers)
    if isinstance(part, Unsatisfiable):
        raise RangeRefused(f"the range begins behind the last of {size} bytes", size)
    headers["Content-Length"] = str(part.end - part.start)
    if not part.whole:
        headers["Content-Range"] = f"bytes {part.start}-{part.end - 1}/{size}"
    status, kind = 200 if part.whole else 206, _TYPES[name.suffix]
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type=kind)
    first = await _piece(parts.store, key, part, part.start)
    return StreamingResponse(_rest(parts.store, key, part, first), status, headers, media_type=kind)


def _key(job: Job, variant: Variant) -> str:
    """Raises `VideoNotReady`, `VideoExpired`."""
    if job.status is not Status.COMPLETED:
        raise VideoNotReady(f"the video is {job.status}; it can be downloaded when it is completed")
    key = {"video": job.video, "thumbnail": job.thumbnail, "spritesheet": job.spritesheet}[variant]
    if key is None:
        raise VideoExpired("the video's bytes were deleted when it expired")
    return key


async def _piece(store: Store, key: str, part: Part, start: int) -> bytes:
    end = min(start + _PIECE, part.end)
    return await beside(lambda: store.range(key, start, end)) if end > start else b""


async def _rest(store: Store, key: str, part: Part, piece: bytes) -> AsyncIterator[bytes]:
    place = part.start
    while piece:
        yield piece
        place += len(piece)
        piece = await _piece(store, key, part, place)
