"""Reads JSON that somebody else wrote, within bounds: a few bytes of it can cost a parser its stack or its memory."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

MAX_BYTES = 64 * 2**20
MAX_DEPTH = 64
MAX_DIGITS = 40


def read_json(path: Path, *, most: int = MAX_BYTES) -> Any:
    """The content of a JSON file.

    Raises `OSError` where it cannot be read, and `ValueError` for what is no regular file and as `parse_json`.
    """
    with open(path, "rb", opener=_at_once) as file:
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            raise ValueError("it is a folder, device or pipe")
        return parse_json(file.read(most + 1), most=most)


def parse_json(text: str | bytes, *, most: int = MAX_BYTES, finite: bool = True) -> Any:
    """The value that `text` says.

    Args:
        most: bytes, or characters, that it may have.
        finite: refuse what is no number in JSON (NaN, Infinity), and numbers above float64 or of more than 40 digits;
            False for a reader that checks each number itself.

    Raises `ValueError` with a short reason, also for text that is not UTF-8 or nested deeper than 64.
    """
    if len(text) > most:
        raise ValueError(f"it has more than {most} bytes")
    hooks: dict[str, Any] = {"parse_int": _whole, "parse_float": _number, "parse_constant": _number} if finite else {}
    try:
        value = json.loads(text, **hooks)
    except RecursionError:
        raise ValueError(f"it is nested deeper than {MAX_DEPTH}") from None
    level, depth = [value], 0
    while level := [inner for outer in level if isinstance(outer, dict | list) for inner in _inside(outer)]:
        depth += 1
        if depth > MAX_DEPTH:
            raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
    return value


def _inside(value: dict[str, Any] | list[Any]) -> Any:
    return value.values() if isinstance(value, dict) else value


def _whole(text: str) -> int:
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has {len(text)} digits, at most {MAX_DIGITS} are read")
    return int(text)


def _number(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"{text[:20]} is not a finite number")
    return value


def _at_once(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)  # a pipe would wait for its writer
