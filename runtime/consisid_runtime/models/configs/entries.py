"""Reads the entries of a configuration file one by one, and says everything that is wrong with the file at once."""

from __future__ import annotations

import math
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from consisid_runtime.errors import CheckpointInvalid

Value = TypeVar("Value")

LARGEST = 1 << 16
"""Of every size that has no narrower bound: twenty times those of the released checkpoint."""

_PRESET = "_use_default_values"
"""diffusers' list of entries whose written value it replaces by its default."""

_shown = reprlib.Repr()
_shown.maxstring = _shown.maxother = _shown.maxlong = 100


class Entries:
    """One configuration file. Every getter checks its entry.

    What fails is noted, and the default taken instead, so that the checks behind it still run. `done` raises for all of
    it. An entry that no call has named is unknown: the reference may obey it, so it is refused. Entries that begin with
    an underscore are notes of the library that wrote the file.

    Args:
        file: path inside the checkpoint, for messages.
        content: the parsed JSON.
    """

    def __init__(self, file: str, content: Mapping[str, Any]) -> None:
        self._file = file
        preset = content.get(_PRESET)
        preset = preset if isinstance(preset, list) else []
        self._content = {name: value for name, value in content.items() if name not in preset}
        self._known: set[str] = set()
        self._problems: list[str] = []

    def whole(self, name: str, default: int, low: int = 1, high: int = LARGEST) -> int:
        """A whole number; not a boolean, nor a number with a fraction."""
        value = self._get(name, default)
        fits = isinstance(value, int) and not isinstance(value, bool) and low <= value <= high
        return self._checked(name, value, default, fits, f"a whole number from {low} to {high}")

    def number(self, name: str, default: float, low: float = -math.inf, high: float = math.inf) -> float:
        """A finite number from `low` to `high`."""
        value = self._get(name, default)
        fits = _is_number(value) and low <= value <= high
        limits = f" from {low:g} to {high:g}" if (low, high) != (-math.inf, math.inf) else ""
        return self._checked(name, value, default, fits, f"a finite number{limits}")

    def positive(self, name: str, default: float, high: float = math.inf) -> float:
        """A finite number above 0, at most `high`."""
        value = self._get(name, default)
        limit = "" if high == math.inf else f", at most {high:g}"
        return self._checked(name, value, default, _is_number(value) and 0 < value <= high, f"a number above 0{limit}")

    def flag(self, name: str, default: bool) -> bool:
        value = self._get(name, default)
        return self._checked(name, value, default, isinstance(value, bool), "true or false")

    def wholes(self, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of one to eight sizes."""
        value = self._get(name, list(default))
        fits = isinstance(value, list) and 1 <= len(value) <= 8
        fits = fits and all(isinstance(n, int) and not isinstance(n, bool) and 1 <= n <= LARGEST for n in value)
        return tuple(self._checked(name, value, default, fits, f"a list of 1 to 8 whole numbers from 1 to {LARGEST}"))

    def choice(self, name: str, default: Any, choices: Iterable[Any]) -> Any:
        """One of the values that this version supports."""
        value, choices = self._get(name, default), tuple(choices)
        fits = any(value == choice and isinstance(value, bool) == isinstance(choice, bool) for choice in choices)
        wanted = " or ".join("null" if choice is None else str(choice) for choice in choices)
        return self._checked(name, value, default, fits, wanted)

    def unread(self, *names: str) -> None:
        """Known entries that change nothing in what is computed from the file."""
        self._known.update(names)

    def same(self, name: str, other: str, value: object) -> None:
        """Where `name` is there: another name for the entry `other`, which has the value `value`."""
        found = self._get(name, value)
        self.require(name, found, found == value, f"{value!r} as {other}, or leave it out")

    def require(self, name: str, value: object, fits: bool, wanted: str) -> None:
        """Note that an entry's value does not fit to others."""
        if not fits:
            origin = "" if name in self._content else " by default"
            self._problems.append(f"{name} is {_shown.repr(value)}{origin}, wanted {wanted}")

    def done(self) -> None:
        """Raises `CheckpointInvalid` naming every entry that failed or is unknown."""
        unknown = [name for name in self._content if name not in self._known and not name.startswith("_")]
        self._problems += [
            f"{_shown.repr(name)} is no entry that this version knows, and might change what is computed: "
            "remove it if it does not"
            for name in unknown
        ]
        if self._problems:
            raise CheckpointInvalid(f"{self._file}: {'; '.join(self._problems)}")

    def _get(self, name: str, default: Any) -> Any:
        self._known.add(name)
        value = self._content.get(name, default)
        return list(value) if isinstance(value, tuple) else value

    def _checked(self, name: str, value: Any, default: Value, fits: bool, wanted: str) -> Value:
        self.require(name, value, fits, wanted)
        return cast(Value, value) if fits else default


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
