"""WebP files: sizes and metadata, by the container of RFC 9649. Their pixels need no rewriting."""

from __future__ import annotations

import struct

from consisid_runtime.stages.face.formats.essentials import Essentials, check_size, damaged
from consisid_runtime.stages.face.formats.orientation import orientation

_MAX_CHUNKS = 100_000
_HELD = 16
"""Bytes a pixel that Pillow's decoder has beside its result: two canvases, their copy, and the lossless form."""


def essentials(data: bytes) -> Essentials:
    """The file as it is, with what its metadata says.

    Raises `ImageUnreadable` for more than 100,000 chunks, and what `check_size` raises: Pillow's decoder allocates its
    canvases when the file is opened.
    """
    width, height = _size(data)
    check_size(width, height)
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
    return Essentials(
        data, orientation(found.get(b"EXIF"), found.get(b"XMP ")), found.get(b"ICCP"), _HELD * width * height
    )


def _size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas, from the header."""
    head = data[12:30].ljust(18, b"\0")
    if head.startswith(b"VP8X"):
        width, height = (1 + int.from_bytes(head[at : at + 3], "little") for at in (12, 15))
    elif head.startswith(b"VP8L"):
        bits = int.from_bytes(head[9:13], "little")
        width, height = 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    elif head.startswith(b"VP8 "):
        width, height = (size & 0x3FFF for size in struct.unpack_from("<HH", head, 14))
    else:
        raise damaged("its header is no WebP header")
    return width, height
