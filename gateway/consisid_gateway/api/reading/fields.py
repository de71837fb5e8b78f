"""One field of a request: texts of a form become the values that JSON has."""

from __future__ import annotations

import re
import typing
from collections.abc import Collection
from dataclasses import fields
from typing import Any

from consisid_runtime.errors import InvalidOption
from consisid_runtime.option_names import meant
from consisid_runtime.options import Options

KINDS: dict[str, frozenset[type]] = {}
"""Option → the types that its values may have, None aside."""

_WHOLE = re.compile(r"[+-]?\d{1,40}", re.ASCII)
_NUMBER = re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,3})?", re.ASCII)
_TRUTH = {"true": True, "false": False, "True": True, "False": False, "1": True, "0": False}
_SIZE = re.compile(r"(\d{1,5})x(\d{1,5})", re.ASCII)
_LONGEST_SECONDS = 86400.0


def option(name: str, value: Any) -> Any:
    """The value of an option, where a text may stand for a number or a truth value; `Options` checks it."""
    kinds = KINDS[name]
    if not isinstance(value, str):
        return value
    if bool in kinds:
        return _TRUTH.get(value, value)
    if int in kinds and _WHOLE.fullmatch(value):
        return int(value)
    if float in kinds and _NUMBER.fullmatch(value):
        return float(value)
    return value


def require_known(names: Collection[str], known: Collection[str]) -> None:
    """Raises `InvalidOption` for a name that is not known, with the nearest one that is."""
    for name in names:
        if name not in known:
            near = meant(name, known)
            hint = f"did you mean {near!r}?" if near else f"known fields: {', '.join(known)}"
            raise InvalidOption(f"unknown field {name[:80]!r}; {hint}")


def text(name: str, value: Any, most: int, *, empty: bool = False) -> str:
    """A short text. Raises `InvalidOption`, also for controls and halves of characters."""
    if not isinstance(value, str) or len(value) > most or not (value or empty) or not value.isprintable():
        raise InvalidOption(f"{name} must be text of 1 to {most} printable characters")
    return value


def size(value: Any) -> tuple[int, int]:
    """Width and height of "WxH". Raises `InvalidOption`."""
    found = _SIZE.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        raise InvalidOption(f'size must be "WIDTHxHEIGHT" in pixels, such as "720x480", got {str(value)[:80]!r}')
    return int(found[1]), int(found[2])


def seconds(value: Any) -> float:
    """A length, also as text. Raises `InvalidOption`."""
    number = float(value) if isinstance(value, str) and _NUMBER.fullmatch(value) else value
    whole = isinstance(number, int | float) and not isinstance(number, bool)
    if not whole or not 0 < number <= _LONGEST_SECONDS:
        raise InvalidOption(f"seconds must be a number above 0, at most {_LONGEST_SECONDS:g}, got {str(value)[:80]!r}")
    return float(number)


def frames_of(length: float, fps: int) -> int:
    """The number of frames, 8k + 1, that comes nearest to so many seconds."""
    return 8 * max(0, round((length * fps - 1) / 8)) + 1


def seconds_of(frames: int, fps: int) -> str:
    """The length of a video as `seconds`: a whole number where that asks for as many frames."""
    whole = max(1, round(frames / fps))
    return str(whole) if frames_of(whole, fps) == frames else f"{frames / fps:g}"


def _kinds_of(hint: Any) -> frozenset[type]:
    return frozenset(type(part) if isinstance(part, str) else part for part in _parts(hint)) - {type(None)}


def _parts(hint: Any) -> list[Any]:
    inner = typing.get_args(hint)
    return [part for each in inner for part in _parts(each)] if inner else [hint]


_HINTS = typing.get_type_hints(Options)
KINDS.update({field.name: _kinds_of(_HINTS[field.name]) for field in fields(Options)})
