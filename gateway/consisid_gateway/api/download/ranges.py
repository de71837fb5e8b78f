"""What a caller asks of an object's bytes: all of them, a range, or nothing where it has them already."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_RANGE = re.compile(r"\s*bytes\s*=\s*(\d{0,18})\s*-\s*(\d{0,18})\s*", re.ASCII | re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Unsatisfiable:
    """The range begins behind the end."""


@dataclass(frozen=True, slots=True)
class Part:
    """Bytes from `start` to before `end`; `whole` where no range was asked for."""

    start: int
    end: int
    whole: bool


def wanted(headers: Mapping[str, str], size: int, tag: str) -> Part | Unsatisfiable | None:
    """What is to be sent; None where the caller has it.

    What is no range of bytes, and several ranges at once, are answered with everything, as HTTP allows.

    Args:
        tag: the ETag of the bytes.
    """
    everything = Part(0, size, whole=True)
    if names(headers.get("if-none-match", ""), tag):
        return None
    if "if-range" in headers and headers["if-range"].strip() != tag:
        return everything
    found = _RANGE.fullmatch(headers.get("range", ""))
    if found is None or not (found[1] or found[2]):
        return everything
    if not found[1]:
        last = int(found[2])
        return Part(max(0, size - last), size, whole=False) if last and size else Unsatisfiable()
    start = int(found[1])
    end = size if not found[2] else min(size, int(found[2]) + 1)
    if found[2] and int(found[2]) < start:
        return everything
    return Part(start, end, whole=False) if start < size else Unsatisfiable()


def names(header: str, tag: str) -> bool:
    """Whether an If-None-Match has this ETag."""
    given = [each.strip().removeprefix("W/") for each in header.split(",")]
    return "*" in given or tag in given
