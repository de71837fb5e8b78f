"""What every format's module returns, its bounds, and its errors."""

from __future__ import annotations

from typing import NamedTuple

from consisid_runtime.errors import ImageTooLarge, ImageUnreadable

MAX_MEMORY = 512 * 2**20
"""Bytes that a decoder may need beside the file, its result included."""

MAX_VISITS = 16 * 10**8
"""Samples that a decoder may visit, each counted as often as it is visited."""

MAX_PROFILE = 8 * 2**20
"""Bytes. A larger colour profile is ignored."""


class Essentials(NamedTuple):
    """A file without what decoding does not need.

    Attributes:
        data: a file of the same format with the same pixels.
        orientation: 1 to 8, as EXIF defines it: how the stored pixels are turned to be upright.
        profile: the ICC profile's bytes, or None.
        held: bytes that the decoder needs beside its result, whatever the scale it decodes at.
    """

    data: bytes | bytearray
    orientation: int = 1
    profile: bytes | None = None
    held: int = 0


def damaged(problem: str) -> ImageUnreadable:
    return ImageUnreadable(f"the image is damaged ({problem}); save it again and send the whole file")


def unsupported(what: str) -> ImageUnreadable:
    return ImageUnreadable(f"{what} is not read; save the image as an ordinary JPEG or PNG file")


def too_costly(problem: str) -> ImageTooLarge:
    return ImageTooLarge(f"{problem}; save it again as an ordinary JPEG or PNG file, or make it smaller")
