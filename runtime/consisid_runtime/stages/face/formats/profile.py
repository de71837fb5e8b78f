"""Colour profiles by the tag table of ICC.1:2022: what of a profile is applied."""

from __future__ import annotations

import struct

MAX_BYTES = 8 * 2**20
"""A larger profile is ignored."""

_TABLE, _ENTRY = 128, 12
_MOST_TAGS = 100
"""littlecms opens no profile with more."""
_FLOAT_TAGS = (b"D2B", b"B2D")


def bounded(profile: bytes | None) -> bytes | None:
    """The profile with its tables and curves only; None where it is larger than 8 MiB.

    The floating-point transforms of version 4.3 are chains of any length that may repeat an element: kilobytes cost
    minutes. A profile that has them has tables for the same purpose too.
    """
    if not profile or len(profile) > MAX_BYTES:
        return None
    changed = bytearray(profile)
    count = min(int.from_bytes(profile[_TABLE : _TABLE + 4], "big"), _MOST_TAGS)
    for at in range(_TABLE + 4, min(_TABLE + 4 + count * _ENTRY, len(profile) - 4), _ENTRY):
        (name,) = struct.unpack_from("3s", profile, at)
        if name in _FLOAT_TAGS:
            changed[at : at + 3] = name.lower()  # a name that no reader knows
    return bytes(changed)
