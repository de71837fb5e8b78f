"""Changes of bytes that no format is safe from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random

NUMBERS = [0, 1, 2, 3, 4, 7, 8, 15, 16, 31, 32, 63, 64, 100, 127, 128, 255, 256, 4095, 4096, 65535, 65536]
NUMBERS += [2**24 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**63, 2**64 - 1]
_MOST = 2**18
"""Bytes that a file may grow to."""


def changed(chance: Random, data: bytes, others: Sequence[bytes] = (), most: int = 6) -> bytes:
    """The bytes after one to `most` changes, some with parts of `others`."""
    for _ in range(chance.randint(1, most)):
        data = chance.choice(_CHANGES)(chance, data, others or (data,))
    return data[:_MOST]


def _span(chance: Random, data: bytes) -> tuple[int, int]:
    """Where a part of up to 64 bytes, rarely of any length, begins and ends."""
    start = chance.randrange(len(data) + 1)
    size = chance.randint(1, len(data) + 1 if chance.random() < 0.1 else 64)
    return start, min(len(data), start + size)


def _flip(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    found = bytearray(data)
    for _ in range(chance.randint(1, 8)):
        if found:
            found[chance.randrange(len(found))] ^= 1 << chance.randrange(8)
    return bytes(found)


def _number(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A number of one to eight bytes in the place of what was there; the first bytes, with headers, most often."""
    size = chance.choice([1, 2, 2, 4, 4, 4, 8])
    number = chance.choice(NUMBERS) % 256**size
    order = "little" if chance.random() < 0.5 else "big"
    start = chance.randrange(min(len(data), 128 if chance.random() < 0.6 else len(data)) + 1)
    return data[:start] + number.to_bytes(size, order) + data[start + size :]  # type: ignore[arg-type]


def _noise(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(chance, data)
    return data[:start] + chance.randbytes(end - start) + data[end:]


def _filled(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(chance, data)
    return data[:start] + bytes([chance.choice([0, 1, 127, 128, 255])]) * (end - start) + data[end:]


def _cut(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    return data[: chance.randrange(len(data) + 1)]


def _without(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(chance, data)
    return data[:start] + data[end:]


def _repeated(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    start, end = _span(chance, data)
    return data[:end] + data[start:end] * chance.choice([1, 1, 2, 10, 100]) + data[end:]


def _spliced(chance: Random, data: bytes, others: Sequence[bytes]) -> bytes:
    """A part of another file in its place, or the end of it."""
    other = chance.choice(others)
    start, end = _span(chance, other)
    place = chance.randrange(len(data) + 1)
    return data[:place] + (other[start:end] + data[place:] if chance.random() < 0.7 else other[start:])


_CHANGES: Sequence[Callable[[Random, bytes, Sequence[bytes]], bytes]] = (
    _flip, _flip, _number, _number, _number, _noise, _filled, _cut, _without, _repeated, _spliced,
)  # fmt: skip
