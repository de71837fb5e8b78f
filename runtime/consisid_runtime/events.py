"""What long work reports while it runs."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from consisid_runtime.errors import ServerError
from consisid_runtime.files.json_file import parse_json

Progress = Callable[[str, int, int], None]
"""Called with what is being done, and how many of how many parts of it are done. Raise in it to cancel the work."""

QUEUE = "queue"
"""The stage of an event of a request that waits for its turn."""


def silent(label: str, done: int, total: int) -> None:
    """Reports to nobody."""


@dataclass(frozen=True, slots=True)
class Event:
    """How far a request is.

    Attributes:
        stage: `QUEUE`, the name of one of `stages.table`, or "similarity".
        done, total: parts of the stage, steps of `denoise`; 0 of 1 where another stage begins.
        position: requests that run before this one, in `QUEUE`; None elsewhere.
        seconds_left: until the video, by the seconds of the steps so far and of earlier requests; None while unknown.
        preview: a JPEG of the video's first frame as far as it can be foreseen; None where none was asked for.
        checkpoint: what a later request can go on from; None where none was asked for, or none is due.
    """

    stage: str
    done: int
    total: int
    position: int | None = None
    seconds_left: float | None = None
    preview: bytes | None = None
    checkpoint: bytes | None = None

    def to_json(self) -> str:
        """All but the bytes of `preview` and `checkpoint`."""
        left = None if self.seconds_left is None else round(self.seconds_left, 3)
        fields = {"stage": self.stage, "done": self.done, "total": self.total}
        return json.dumps(fields | {"position": self.position, "seconds_left": left})

    @classmethod
    def from_json(cls, text: bytes | str, preview: bytes | None = None, checkpoint: bytes | None = None) -> Event:
        """The inverse of `to_json`, with the bytes. Raises `ServerError` for anything else."""
        try:
            given: dict[str, Any] = parse_json(text)
            event = cls(**{name: given[name] for name in ("stage", "done", "total", "position", "seconds_left")})
        except (ValueError, KeyError, TypeError):
            event = None
        if event is None or not _is_event(event):
            raise ServerError(f"the server sent an event that is none: {text[:200]!r}")
        return cls(event.stage, event.done, event.total, event.position, event.seconds_left, preview, checkpoint)


def _is_event(event: Event) -> bool:
    counts = (event.done, event.total, *(() if event.position is None else (event.position,)))
    left = event.seconds_left
    return (
        isinstance(event.stage, str)
        and all(isinstance(count, int) and not isinstance(count, bool) and count >= 0 for count in counts)
        and (left is None or (isinstance(left, int | float) and not isinstance(left, bool) and math.isfinite(left)))
    )
