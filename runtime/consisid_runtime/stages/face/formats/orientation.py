"""The orientation in EXIF or XMP metadata. What else they contain is not looked at, so that it cannot be wrong."""

from __future__ import annotations

import re
import struct

UPRIGHT = 1
_TAG = 0x0112
_SHORT, _LONG = 3, 4
_XMP = re.compile(rb'tiff:Orientation(?:="|>)([0-9])')


def orientation(exif: bytes | None, xmp: bytes | None = None) -> int:
    """1 to 8 as EXIF defines them; 1 where the metadata has none, is damaged, or has another value.

    XMP counts where EXIF has no orientation, as in Pillow.

    Args:
        exif: a TIFF structure, with or without `Exif\\0\\0` before it.
        xmp: an XMP packet, UTF-8.
    """
    found = _exif(exif) if exif else None
    if found is None and xmp and (match := _XMP.search(xmp)):
        found = int(match[1])
    return found if found is not None and 1 <= found <= 8 else UPRIGHT


def _exif(data: bytes) -> int | None:
    """The value of the first directory's orientation tag; 0 for one that is no single whole number."""
    start = 0
    while data.startswith(b"Exif\0\0", start):
        start += 6
    order = {b"II": "<", b"MM": ">"}.get(data[start : start + 2])
    try:
        if order is None:
            return None
        (offset,) = struct.unpack_from(f"{order}I", data, start + 4)
        (count,) = struct.unpack_from(f"{order}H", data, start + offset)
        for entry in range(start + offset + 2, start + offset + 2 + 12 * count, 12):
            tag, kind, values = struct.unpack_from(f"{order}HHI", data, entry)
            if tag == _TAG:
                form = {_SHORT: "H", _LONG: "I"}.get(kind)
                if form is None or values != 1:
                    return 0
                return int(struct.unpack_from(order + form, data, entry + 8)[0])
    except struct.error:  # the file ends before its directory
        pass
    return None
