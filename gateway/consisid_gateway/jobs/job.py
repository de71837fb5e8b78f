"""One job as its callers see it."""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from typing import Any

import sqlalchemy as sa

from consisid_gateway.jobs.tables import jobs
from consisid_runtime.options import Options


class Status(StrEnum):
    """What the official SDK knows; it takes every other word for an end."""

    QUEUED = "queued"
    RUNNING = "in_progress"
    COMPLETED = "completed"
    FAILED = "failed"


OPEN = (Status.QUEUED, Status.RUNNING)


@dataclass(frozen=True, slots=True)
class Job:
    """A row. Times are seconds since 1970; keys are those of objects in the store.

    Attributes:
        options: as `Options.to_mapping`.
        worker, epoch: who owns it, and the number of its owners so far.
        attempts: how often a server ended while it made this video.
        done, total: of the stage.
        info: of the video, as the runtime's `wire.describe`.
        trace: W3C traceparent of the request that created it.
    """

    id: str
    tenant: str
    status: Status
    urgent: bool
    model: str
    prompt: str
    options: Mapping[str, Any]
    portrait: str
    character: str | None
    remixed_from: str | None
    webhook: str | None
    created_at: float
    started_at: float | None
    completed_at: float | None
    expires_at: float | None
    worker: str | None
    epoch: int
    attempts: int
    stage: str | None
    done: int
    total: int
    seconds_left: float | None
    checkpoint: str | None
    video: str | None
    video_bytes: int
    thumbnail: str | None
    spritesheet: str | None
    info: Mapping[str, Any] | None
    error_code: str | None
    error_message: str | None
    trace: str | None

    @classmethod
    def of(cls, row: sa.RowMapping) -> Job:
        values = {field.name: row[field.name] for field in fields(cls)}
        info = values["info"]
        return cls(
            **values
            | {
                "status": Status(values["status"]),
                "options": json.loads(values["options"]),
                "info": None if info is None else json.loads(info),
            }
        )

    @property
    def request(self) -> Options:
        return Options.from_mapping(self.options)

    @property
    def progress(self) -> int:
        """Percent, a whole number."""
        return 100 if self.status is Status.COMPLETED else percent(self.stage, self.done, self.total)


def percent(stage: str | None, done: int, total: int) -> int:
    """Of a video, from the parts of one stage: denoising, by far the longest, is 5 to 95."""
    if stage == "denoise" and total:
        return 5 + 90 * min(done, total) // total
    return 95 if stage in ("decode", "similarity") else 0


def new_id(kind: str) -> str:
    """Not to be guessed: "video_…", "char_…"."""
    return f"{kind}_{secrets.token_hex(16)}"


IDS = re.compile(r"(video|char)_[0-9a-f]{32}")
"""As `new_id` makes them."""
_JOBS, _CHARACTERS = "jobs/", "characters/"
PARENTS = (_JOBS, _CHARACTERS)
"""Of all objects."""


def prefix_of(job: str) -> str:
    """Of all objects of a job."""
    return f"{_JOBS}{job}/"


def checkpoints_of(job: str) -> str:
    """Of the objects of a job that are of no use once it has ended."""
    return f"{prefix_of(job)}checkpoints/"


def character_prefix(character: str) -> str:
    """Of all objects of a character."""
    return f"{_CHARACTERS}{character}/"


COLUMNS = [jobs.c[field.name] for field in fields(Job)]
