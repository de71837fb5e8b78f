"""What the interface answers with: in the OpenAPI document and on the wire. Times are whole seconds since 1970."""

from __future__ import annotations

import base64
from typing import Any, Generic, Literal, Self, TypeVar

from pydantic import BaseModel, Field

from consisid_gateway.api.reading.fields import seconds_of
from consisid_gateway.jobs.characters import Character as CharacterRow
from consisid_gateway.jobs.events import Told
from consisid_gateway.jobs.job import Job, Status, percent
from consisid_runtime.errors import from_wire
from consisid_runtime.options import Options


class Named(BaseModel):
    """What a list can have."""

    id: str


_T = TypeVar("_T", bound=Named)


class Problem(BaseModel):
    """Why a request was refused or failed."""

    message: str
    type: Literal["invalid_request_error", "server_error"]
    code: str = Field(description="stable across releases")
    param: str | None = Field(description="the field that it is about")
    remedy: str = Field(description="what to do")


class Refusal(BaseModel):
    """The answer to a request that was not carried out."""

    error: Problem


class JobError(BaseModel):
    """Why there is no video."""

    code: str
    message: str
    remedy: str = Field(description="what to do")

    @classmethod
    def of(cls, code: str, message: str) -> JobError:
        return cls(code=code, message=message, remedy=from_wire(f"{code}: {message}").remedy)


class Video(Named):
    """A video, and the job that makes it. A job that failed is no failed request: it is told here."""

    object: Literal["video"] = "video"
    model: str
    status: Status
    progress: int = Field(ge=0, le=100)
    created_at: int
    completed_at: int | None
    expires_at: int | None = Field(description="when its bytes are deleted")
    error: JobError | None
    prompt: str
    remixed_from_video_id: str | None
    seconds: str | None = Field(description="null while it is the checkpoint's own and not known yet")
    size: str | None = Field(description='"WxH"; null while it is the checkpoint\'s own and not known yet')
    started_at: int | None
    position: int | None = Field(
        description="jobs that are begun before this one; null where it does not wait, in lists"
    )
    seconds_left: float | None = Field(description="until the video; null while unknown")
    stage: str | None
    done: int = Field(description="parts of the stage: steps of denoise")
    total: int
    priority: Literal["default", "urgent"]
    character: str | None
    options: dict[str, Any] = Field(description="as they were carried out; before, those that differ from defaults")
    seed: int
    bundle: str | None = Field(description="fingerprint of the engines that made it")
    warnings: list[str]
    face: dict[str, Any] | None = Field(description="which face was taken, where it was, and its quality")

    @classmethod
    def of(cls, job: Job, position: int | None = None) -> Video:
        info = job.info or {}
        options: dict[str, Any] = dict(info.get("options") or job.options)
        frames, width, height = options.get("frames"), options.get("width"), options.get("height")
        failed = job.status is Status.FAILED
        return cls(
            id=job.id,
            model=job.model,
            status=job.status,
            progress=job.progress,
            created_at=int(job.created_at),
            completed_at=_whole(job.completed_at),
            expires_at=_whole(job.expires_at),
            error=JobError.of(job.error_code or "INTERNAL", job.error_message or "") if failed else None,
            prompt=job.prompt,
            remixed_from_video_id=job.remixed_from,
            seconds=None if frames is None else seconds_of(frames, options.get("fps", Options().fps)),
            size=None if width is None or height is None else f"{width}x{height}",
            started_at=_whole(job.started_at),
            position=position,
            seconds_left=None if job.seconds_left is None else round(job.seconds_left, 3),
            stage=job.stage,
            done=job.done,
            total=job.total,
            priority="urgent" if job.urgent else "default",
            character=job.character,
            options=options,
            seed=options.get("seed", 0),
            bundle=info.get("bundle"),
            warnings=list(info.get("warnings") or ()),
            face=info.get("face"),
        )


class Listed(BaseModel, Generic[_T]):
    """A page of a list."""

    object: Literal["list"] = "list"
    data: list[_T]
    has_more: bool
    first_id: str | None
    last_id: str | None

    @classmethod
    def of(cls, data: list[_T], *, has_more: bool) -> Self:
        ends = (data[0].id, data[-1].id) if data else (None, None)
        return cls(data=data, has_more=has_more, first_id=ends[0], last_id=ends[1])


class Videos(Listed[Video]):
    """A page of videos."""


class Character(Named):
    """A portrait with a name, whose face was read."""

    object: Literal["character"] = "character"
    name: str
    created_at: int
    expires_at: int | None
    status: Literal["pending", "ready", "refused"]
    face: dict[str, Any] | None = Field(description="its box and its quality; null unless ready")
    error: JobError | None = Field(description="null unless refused")

    @classmethod
    def of(cls, row: CharacterRow) -> Character:
        return cls(
            id=row.id,
            name=row.name,
            created_at=int(row.created_at),
            expires_at=_whole(row.expires_at),
            status=row.status.value,
            face=None if row.face is None else dict(row.face),
            error=None if row.error_code is None else JobError.of(row.error_code, row.error_message or ""),
        )


class Characters(Listed[Character]):
    """A page of characters."""


class VideoDeleted(BaseModel):
    """The video is no more, and its bytes are deleted."""

    id: str
    object: Literal["video.deleted"] = "video.deleted"
    deleted: Literal[True] = True


class CharacterDeleted(BaseModel):
    """The character is no more, and its portrait is deleted; its videos stay."""

    id: str
    object: Literal["character.deleted"] = "character.deleted"
    deleted: Literal[True] = True


class Progress(BaseModel):
    """The data of the event `progress`."""

    stage: str
    done: int
    total: int
    seconds_left: float | None
    progress: int
    preview: str | None = Field(description="a data URL of a JPEG")

    @classmethod
    def of(cls, told: Told) -> Progress:
        event = told.event
        picture = None if event.preview is None else base64.b64encode(event.preview).decode()
        return cls(
            stage=event.stage,
            done=event.done,
            total=event.total,
            seconds_left=event.seconds_left,
            progress=percent(event.stage, event.done, event.total),
            preview=None if picture is None else f"data:image/jpeg;base64,{picture}",
        )


def _whole(moment: float | None) -> int | None:
    return None if moment is None else int(moment)
