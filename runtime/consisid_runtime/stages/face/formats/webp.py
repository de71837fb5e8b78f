"""WebP files: the metadata chunks, by the container of RFC 9649. Their pixels need no rewriting."""

from __future__ import annotations

import struct

from consisid_runtime.stages.face.formats.essentials import MAX_PROFILE, Essentials, damaged
from consisid_runtime.stages.face.formats.orientation import orientation

_MAX_CHUNKS = 100_000


def essentials(data: bytes) -> Essentials:
    """The file as it is, with what its metadata says. Raises `ImageUnreadable` for more than 100,000 chunks."""
    found: dict[bytes, bytes] = {}
    at = 12
    for _ in range(_MAX_CHUNKS):
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind in (b"EXIF", b"XMP ", b"ICCP"):
            found.setdefault(kind, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    else:
        raise damaged(f"it has more than {_MAX_CHUNKS} chunks")
    profile = found.get(b"ICCP")
    return Essentials(
        data,
        orientation(found.get(b"EXIF"), found.get(b"XMP ")),
        profile if profile and len(profile) <= MAX_PROFILE else None,
    )
