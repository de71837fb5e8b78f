"""A face that was read once, and that later requests name instead of sending the photograph."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Identity:
    """What `identify` returns; `generate` and `stream` take it in place of an image. Known where it was made alone.

    Attributes:
        handle: stands for the face. Who has it can make videos of the person: `repr` and logs never show it.
        info: as a video's `info["face"]`: faces seen, which was taken, its box, and figures of its quality.
    """

    handle: str = field(repr=False)
    info: Mapping[str, Any]
