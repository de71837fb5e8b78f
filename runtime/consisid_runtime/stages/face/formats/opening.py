"""Opens an image file: its format, its size and what decoding needs are checked, its pixels are not decoded yet."""

from __future__ import annotations

import io
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from PIL import Image, UnidentifiedImageError

from consisid_runtime.errors import ImageTooLarge, ImageTooSmall, ImageUnreadable
from consisid_runtime.stages.face.formats import bmp, gif, jpeg, png, tiff, webp
from consisid_runtime.stages.face.formats.essentials import MAX_PIXELS, SHRINK, Essentials, check_size, damaged

FORMATS: dict[str, tuple[Callable[[bytes], bool], Callable[[bytes], Essentials]]] = {
    "JPEG": (lambda data: data.startswith(b"\xff\xd8\xff"), jpeg.essentials),
    "PNG": (lambda data: data.startswith(png.SIGNATURE), png.essentials),
    "WEBP": (lambda data: data.startswith(b"RIFF") and data[8:12] == b"WEBP", webp.essentials),
    "BMP": (lambda data: data.startswith(b"BM"), bmp.essentials),
    "GIF": (lambda data: data.startswith(gif.SIGNATURES), gif.essentials),
    "TIFF": (lambda data: data.startswith(tiff.SIGNATURES), tiff.essentials),
}
"""Pillow's name of each format that is read → whether bytes begin like such a file, and what of them is decoded."""
# Pillow warns through Python's process-wide filters; one thread at a time may replace them.
_WARNINGS = threading.Lock()


@contextmanager
def opened(data: bytes) -> Iterator[tuple[Image.Image, Essentials]]:
    """The image, to be decoded within the block, and what of its file is.

    Raises `ImageUnreadable`, `ImageTooLarge` or `ImageTooSmall`, as `image.read_photo` says; whatever else decoding in
    the block raises is taken for a damaged file.
    """
    name = next((name for name, (begins, _) in FORMATS.items() if begins(data)), None)
    if name is None:
        raise _unknown(data)
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            file = FORMATS[name][1](data)
            with Image.open(io.BytesIO(file.data), formats=[name]) as image:
                check_size(*image.size)
                yield image, file
        except (ImageTooLarge, ImageTooSmall, ImageUnreadable):
            raise
        except Image.DecompressionBombError as error:
            raise ImageTooLarge(f"the image has more than {MAX_PIXELS // 10**6} megapixels; {SHRINK}") from error
        except UnidentifiedImageError as error:
            raise _unknown(data) from error
        except Exception as error:  # decoders raise almost any type for damaged files
            raise damaged(str(error)) from error


def check_image(data: bytes) -> None:
    """What can be known of an image file before its pixels are decoded. Raises as `opened`."""
    with opened(data):
        pass


def _unknown(data: bytes) -> ImageUnreadable:
    found = f"{len(data)} bytes that are no image of a known format"
    if data[4:8] == b"ftyp":
        found = f"a HEIC or AVIF image or a video ({data[8:12].decode('ascii', 'replace')})"
    return ImageUnreadable(f"{found}; send one of {', '.join(FORMATS)}")
