"""What a body costs is known before it is parsed."""

from __future__ import annotations

import pytest

from consisid_runtime.door.http.body import parse
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import MalformedRequest

BOMBS = {
    "arrays": b"[" + b"[]," * 100_000 + b"1]",
    "objects": b"[" + b"{}," * 100_000 + b"1]",
    "nested": b'{"a":' * 5000,
    "in a text": b'["' + b"[" * 5000 + b'"]',
}


@pytest.mark.parametrize("bomb", BOMBS.values(), ids=BOMBS)
def test_brackets_are_counted_first(bomb: bytes) -> None:
    with pytest.raises(MalformedRequest, match="more than 4096 brackets"):
        parse("consisid", bytearray(bomb), len(bomb), Limits())


def test_brackets_of_binary_data_do_not_count() -> None:
    with pytest.raises(MalformedRequest, match="bytes are left behind the last tensor"):
        parse("consisid", bytearray(b'{"inputs": []}' + b"[" * 5000), 14, Limits())
