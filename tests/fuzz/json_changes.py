"""JSON that nobody expects: values of any type, and documents of which some values are replaced by these."""

from __future__ import annotations

import copy
import json
import re
from random import Random
from typing import Any

from byte_changes import changed

_CHARACTERS = [
    "a",
    "é",
    "海",
    "🌊",
    "\0",
    "\ud800",
    "\udfff",
    "\u200b",
    "\u202e",
    "\n",
    "\x7f",
    '"',
    "\\",
    "/",
    " ",
    "%s",
]
_TEXTS = ["", "only", "exact", "fp8", "draft", "dpm", "crop", "true", "null", "1", "-1", "NaN", "../../etc/passwd"]
_TEXTS += ["video", "info", "frames", "image", "prompt", "BYTES", "UINT8", "FP32", "a" * 32, "0123456789abcdef" * 2]
_NUMBERS = [0, 1, 2, 3, 9, 16, 17, 49, 64, 128, 255, 256, -1, -(2**31), 2**31, 2**53, 2**63 - 1, 2**63, 2**64, 10**39]
_NUMBERS += [10**400, 0.0, -0.0, 0.5, 1.0, 1e-320, 1e308, float("nan"), float("inf"), -float("inf")]


def text(chance: Random) -> str:
    if chance.random() < 0.5:
        return chance.choice(_TEXTS)
    size = chance.choice([1, 2, 5, 40, 300]) if chance.random() < 0.99 else 70_000
    return "".join(chance.choices(_CHARACTERS, k=size))


def value(chance: Random, depth: int = 0) -> Any:
    """A value of any type, rarely deep or long."""
    kind = chance.randrange(10 if depth < 3 else 7)
    if kind < 3:
        return chance.choice(_NUMBERS)
    if kind < 5:
        return text(chance)
    if kind < 7:
        return chance.choice([None, True, False])
    if kind == 7:
        return f"{chance.choice(['lists', 'objects'])} nested {chance.choice([2, 63, 64, 65, 900, 2000])}"
    size = chance.randrange(4) if depth or chance.random() < 0.9 else 300
    if kind == 8:
        return [value(chance, depth + 1) for _ in range(size)]
    return {text(chance): value(chance, depth + 1) for _ in range(size)}


def with_changes(chance: Random, document: Any, most: int = 3) -> Any:
    """A copy of which up to `most` values were replaced, removed, repeated or renamed."""
    found = [copy.deepcopy(document)]
    for _ in range(chance.randint(0, most)):
        places = list(_places(found))[1:] if isinstance(found[0], dict) and found[0] else list(_places(found))
        holder, key = chance.choice(places)
        what = chance.randrange(6)
        if what == 0:
            del holder[key]
            if not found:
                return value(chance)
        elif what == 1 and isinstance(holder, list) and holder is not found:
            holder.insert(key, copy.deepcopy(holder[key]))
        elif what == 2 and isinstance(holder, dict):
            holder[text(chance)] = holder.pop(key)
        elif what == 3:
            other, name = chance.choice(places)
            if (
                other is not found
                and (isinstance(other, dict) or name < len(other))
                and not (isinstance(other, dict) and name not in other)
            ):
                holder[key] = copy.deepcopy(other[name])
        else:
            holder[key] = value(chance)
    return found[0]


def _nested(found: re.Match[str]) -> str:
    begin, end = ("[", "]") if found[1] == "lists" else ('{"a":', "}")
    return begin * int(found[2]) + "1" + end * int(found[2])


def _places(holder: Any, depth: int = 0) -> Any:
    """Every container and key within, those of deep containers excepted."""
    for key in range(len(holder)) if isinstance(holder, list) else list(holder):
        yield holder, key
        if isinstance(holder[key], dict | list) and depth < 8:
            yield from _places(holder[key], depth + 1)


def encoded(chance: Random, document: Any) -> bytes:
    """As JSON's bytes: mostly UTF-8, with changes of the bytes at times."""
    found = re.sub(r'"(lists|objects) nested (\d+)"', _nested, json.dumps(document))
    if chance.random() < 0.05:
        found = found.replace("1", "9" * chance.choice([50, 5000, 20_000]), 1)
    if chance.random() < 0.05:
        found = found.replace("{", '{"a":1,"a":2,', 1)
    data = found.encode(chance.choice(["utf-16", "utf-32", "utf-8-sig"]) if chance.random() < 0.04 else "utf-8")
    return changed(chance, data, most=3) if chance.random() < 0.2 else data
