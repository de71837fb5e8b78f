"""Decodes a user's image file to RGB pixels. The size is checked in the header, before anything is decoded."""

from __future__ import annotations

import contextlib
import io
import threading
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from consisid_runtime.errors import ImageTooLarge, ImageTooSmall, ImageUnreadable

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 64 * 10**6
MIN_EDGE = 64
MAX_ASPECT = 16

_SHRINK = "make it smaller; faces are read at 1024 pixels on the long edge anyway"
_PHOTOMETRIC = 262
"""TIFF's tag for which end of the grey scale is black; Pillow ignores it for 16 bits."""
_OPAQUE = {"1": "L", "L": "L", "LA": "L", "La": "L", "CMYK": "CMYK"}
"""Modes whose colour profile is not one for RGB → the mode that it is for."""
# Pillow warns through Python's process-wide filters; one thread at a time may replace them.
_WARNINGS = threading.Lock()


def read_pixels(data: bytes) -> Pixels:
    """Decode an image file's bytes, as a viewer would show it on a white page.

    EXIF orientation and an embedded colour profile (to sRGB) are applied, transparency is laid on white, 16-bit
    channels are scaled to 8 bits, and of several frames or pages the first is taken.

    Returns RGB [H, W, 3] uint8.

    Raises:
        ImageUnreadable: not an image, a damaged one, or a format or pixel type outside those listed in the message.
        ImageTooLarge: above 64 megapixels; nothing was decoded.
        ImageTooSmall: an edge below 64 pixels, or more than 16 times longer than the other.
    """
    with _WARNINGS, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                _check_size(*image.size)
                return _rgb(image)
        except (ImageTooLarge, ImageTooSmall, ImageUnreadable):
            raise
        except Image.DecompressionBombError as error:
            raise ImageTooLarge(f"the image has more than {MAX_PIXELS // 10**6} megapixels; {_SHRINK}") from error
        except UnidentifiedImageError as error:
            raise ImageUnreadable(
                f"{len(data)} bytes that are no image of a known format; send one of {', '.join(FORMATS)}"
            ) from error
        except Exception as error:  # decoders raise almost any type for damaged files
            raise ImageUnreadable(f"the image is damaged ({error}); save it again and send the whole file") from error


def _check_size(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise ImageTooLarge(
            f"the image has {width}×{height} pixels, at most {MAX_PIXELS // 10**6} megapixels are read; {_SHRINK}"
        )
    if min(width, height) < MIN_EDGE:
        raise ImageTooSmall(f"the image has {width}×{height} pixels, each edge needs at least {MIN_EDGE}")
    if max(width, height) > MAX_ASPECT * min(width, height):
        raise ImageTooSmall(
            f"the image has {width}×{height} pixels; one edge may be at most {MAX_ASPECT} times the other: crop it"
        )


def _rgb(image: Image.Image) -> Pixels:
    image.load()
    if image.mode in ("I", "F"):
        raise ImageUnreadable(f"32-bit pixels (mode {image.mode}) have no fixed range; save it with 8 or 16 bits")
    upright = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        upright = _eight_bits(upright, inverted=_white_is_zero(image))
    opacity = upright.convert("RGBA").getchannel("A") if upright.has_transparency_data else None
    colour = _srgb(upright.convert(_OPAQUE.get(upright.mode, "RGB")), image.info.get("icc_profile"))
    if opacity is not None:
        colour = Image.composite(colour, Image.new("RGB", colour.size, "white"), opacity)
    return np.array(colour)


def _white_is_zero(image: Image.Image) -> bool:
    return isinstance(image, TiffImageFile) and image.tag_v2.get(_PHOTOMETRIC) == 0


def _eight_bits(image: Image.Image, *, inverted: bool) -> Image.Image:
    """16-bit grey → "L", or "LA" where one level is transparent."""
    wide = np.asarray(image).astype(np.uint32)
    light = 65535 - wide if inverted else wide
    grey = Image.fromarray(((light * 255 + 32767) // 65535).astype(np.uint8))
    if "transparency" not in image.info:
        return grey
    opacity = Image.fromarray(np.where(wide == image.info["transparency"], 0, 255).astype(np.uint8))
    return Image.merge("LA", (grey, opacity))


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """RGB, by the colour profile where it is one for such an image."""
    if profile:
        with contextlib.suppress(ImageCms.PyCMSError, OSError):
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            converted = ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
            if converted is not None:
                return converted
    return image.convert("RGB")
