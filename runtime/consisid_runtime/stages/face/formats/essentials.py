"""What every format's module returns, its bounds, and its errors."""

from __future__ import annotations

from typing import NamedTuple

from consisid_runtime.errors import ImageTooLarge, ImageTooSmall, ImageUnreadable

MAX_PIXELS = 64 * 10**6
MIN_EDGE = 64
MAX_ASPECT = 16
SHRINK = "make it smaller; faces are read at 1024 pixels on the long edge anyway"

MAX_MEMORY = 512 * 2**20
"""Bytes that a decoder may need beside the file, its result included."""

MAX_VISITS = 16 * 10**8
"""Samples that a decoder may visit, each counted as often as it is visited."""


class Essentials(NamedTuple):
    """A file without what decoding does not need.

    Attributes:
        data: a file of the same format with the same pixels.
        orientation: 1 to 8, as EXIF defines it: how the stored pixels are turned to be upright.
        profile: the ICC profile's bytes as they are, or None.
        held: bytes that the decoder needs beside its result, whatever the scale it decodes at.
    """

    data: bytes | bytearray
    orientation: int = 1
    profile: bytes | None = None
    held: int = 0


def check_size(width: int, height: int) -> None:
    """Raises `ImageTooLarge` or `ImageTooSmall`."""
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(
            f"the image has {width}×{height} pixels, at most {MAX_PIXELS // 10**6} megapixels are read; {SHRINK}"
        )
    if min(width, height) < MIN_EDGE:
        raise ImageTooSmall(f"the image has {width}×{height} pixels, each edge needs at least {MIN_EDGE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageTooSmall(
            f"the image has {width}×{height} pixels; one edge may be at most {MAX_ASPECT} times the other: crop it"
        )


def damaged(problem: str) -> ImageUnreadable:
    return ImageUnreadable(f"the image is damaged ({problem}); save it again and send the whole file")


def unsupported(what: str) -> ImageUnreadable:
    return ImageUnreadable(f"{what} is not read; save the image as an ordinary JPEG or PNG file")


def too_costly(problem: str) -> ImageTooLarge:
    return ImageTooLarge(f"{problem}; save it again as an ordinary JPEG or PNG file, or make it smaller")
