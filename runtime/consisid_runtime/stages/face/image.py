"""Decodes a user's image file to upright RGB pixels, within bounds of time and memory."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms
from PIL.TiffImagePlugin import TiffImageFile

from consisid_runtime.errors import ImageUnreadable
from consisid_runtime.stages.face.formats.essentials import MAX_MEMORY, Essentials, damaged, too_costly
from consisid_runtime.stages.face.formats.opening import opened
from consisid_runtime.stages.face.formats.profile import bounded

Pixels = npt.NDArray[np.uint8]

_PHOTOMETRIC = 262
"""TIFF's tag for which end of the grey scale is black; Pillow ignores it for 16 bits."""
_BYTES = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16B": 2, "I;16L": 2, "I;16N": 2}
"""Modes → bytes that Pillow keeps a pixel in; 4 in every other mode."""
_OPAQUE = {"1": "L", "L": "L", "LA": "L", "La": "L", "CMYK": "CMYK"}
"""Modes whose colour profile is not one for RGB → the mode that it is for."""
_STRIPE = 2**20
"""Pixels that are converted at a time."""
_STORED: dict[int, Callable[[Pixels], Pixels]] = {
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright.swapaxes(0, 1)[::-1, ::-1],
    8: lambda upright: np.rot90(upright, -1),
}
"""EXIF's orientations → the view of an upright image in which rows and columns are those of the file."""


class Photo(NamedTuple):
    """A decoded image.

    Attributes:
        pixels: upright RGB [h, w, 3] uint8; h and w are the full size, or a half or a quarter of it.
        width, height: the full size.
    """

    pixels: Pixels
    width: int
    height: int


def read_pixels(data: bytes) -> Pixels:
    """The pixels of `read_photo`."""
    return read_photo(data).pixels


def read_photo(data: bytes) -> Photo:
    """Decode an image file's bytes, as a viewer would show it on a white page.

    The orientation and an embedded colour profile (to sRGB) are applied, transparency is laid on white, 16-bit
    channels are scaled to 8 bits, and of several frames or pages the first is taken. Other metadata is not read.

    Decoding takes at most 512 MiB of memory beside the file and the result. A JPEG file of several scans (progressive)
    that would take more is decoded at a half or a quarter of its size: from 53 megapixels without chroma subsampling.

    Raises:
        ImageUnreadable: not an image, a damaged one, or a format or pixel type outside those listed in the message.
        ImageTooLarge: above 64 megapixels, or more to decode than its size warrants; nothing was decoded.
        ImageTooSmall: an edge below 64 pixels, or more than 16 times longer than the other.
    """
    with opened(data) as (image, file):
        return _decode(image, file)


def _decode(image: Image.Image, file: Essentials) -> Photo:
    full = image.size
    part = _loaded(image, file)
    turned = file.orientation > 4
    upright = np.empty((*(image.size if turned else image.size[::-1]), 3), np.uint8)
    stored = _STORED[file.orientation](upright)
    convert = _conversion(image, file.profile)
    rows = max(1, _STRIPE // image.width)
    for top in range(0, image.height, rows):
        bottom = min(top + rows, image.height)
        stored[top:bottom] = convert(part(top, bottom))
    return Photo(upright, *(full[::-1] if turned else full))


def _loaded(image: Image.Image, file: Essentials) -> Callable[[int, int], Image.Image]:
    """Decodes the image, reduced where it would take too much memory; returns what gives rows from one to another."""
    width, height = image.size
    pixels = width * height * _BYTES.get(image.mode, 4)
    parts = next((n for n in (1, 2, 4) if file.held + pixels / n**2 <= MAX_MEMORY), 0)
    if image.format == "WEBP" and parts != 1 and getattr(image, "n_frames", 1) == 1:
        return _large_webp(file.data)
    if parts > 1 and image.format == "JPEG":
        image.draft(None, (width // parts, height // parts))
    elif parts != 1:
        needed, most = (round(size / 2**20) for size in (file.held + pixels, MAX_MEMORY))
        raise too_costly(
            f"the image has {width}×{height} pixels and needs {needed} MiB to decode, at most {most} are used"
        )
    image.load()
    if image.mode in ("I", "F"):
        raise ImageUnreadable(f"32-bit pixels (mode {image.mode}) have no fixed range; save it with 8 or 16 bits")
    return lambda top, bottom: image.crop((0, top, image.width, bottom))


def _large_webp(data: bytes | bytearray) -> Callable[[int, int], Image.Image]:
    """The rows of a still WebP image by OpenCV, which has 8 bytes a pixel while it decodes where Pillow has 20."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise damaged("its pixels cannot be decoded")
    order = cv2.COLOR_BGRA2RGBA if pixels.shape[2] == 4 else cv2.COLOR_BGR2RGB
    return lambda top, bottom: Image.fromarray(cv2.cvtColor(pixels[top:bottom], order))


def _conversion(image: Image.Image, profile: bytes | None) -> Callable[[Image.Image], Pixels]:
    """What makes RGB [h, w, 3] on white of any part of the image."""
    wide = image.mode.startswith("I;16")
    inverted = isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0
    opaque = "L" if wide else _OPAQUE.get(image.mode, "RGB")
    usable = bounded(profile)
    transform = _to_srgb(usable, opaque) if usable else None

    def convert(part: Image.Image) -> Pixels:
        if wide:
            part = _eight_bits(part, inverted=inverted)
        opacity = part.convert("RGBA").getchannel("A") if part.has_transparency_data else None
        colour = part.convert(opaque)
        colour = transform.apply(colour) if transform else colour.convert("RGB")
        if opacity is not None:
            colour = Image.composite(colour, Image.new("RGB", colour.size, "white"), opacity)
        return np.asarray(colour)

    return convert


def _eight_bits(image: Image.Image, *, inverted: bool) -> Image.Image:
    """16-bit grey → "L", or "LA" where one level is transparent."""
    wide = np.asarray(image).astype(np.uint32)
    light = 65535 - wide if inverted else wide
    grey = Image.fromarray(((light * 255 + 32767) // 65535).astype(np.uint8))
    if "transparency" not in image.info:
        return grey
    opacity = Image.fromarray(np.where(wide == image.info["transparency"], 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, opacity))


def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """The transform from a colour profile to sRGB; None where it is damaged or not one for pixels of this mode."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")
    except (ImageCms.PyCMSError, OSError):
        return None
