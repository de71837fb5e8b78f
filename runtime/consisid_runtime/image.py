"""A user's image file → RGB pixels. Sizes are checked from the header, before anything is decoded."""

from __future__ import annotations

import io
import threading
import warnings

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from consisid_runtime.errors import ImageTooLarge, ImageTooSmall, ImageUnreadable
from consisid_runtime.image_file import check_bytes

Pixels = npt.NDArray[np.uint8]

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 64 * 10**6
MIN_EDGE = 64
MAX_ASPECT = 16

_SHRINK = "make it smaller; faces are read at 1024 pixels on the long edge anyway"
# Pillow warns through Python's process-wide filters; one thread at a time may replace them.
_WARNINGS = threading.Lock()


def read_pixels(data: bytes) -> Pixels:
    """Decode an image file's bytes, as a viewer would show it on a white page.

    EXIF orientation is applied, transparency is laid on white, 16-bit channels are scaled to 8 bits, and of several
    frames or pages the first is taken.

    Returns RGB [H, W, 3] uint8.

    Raises:
        ImageUnreadable: not an image, a damaged one, or a format or pixel type outside those listed in the message.
        ImageTooLarge: above 64 MiB or 64 megapixels; nothing was decoded.
        ImageTooSmall: an edge below 64 pixels, or more than 16 times longer than the other.
    """
    check_bytes(len(data))
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
        except Exception as error:  # decoders fed with damaged files raise almost anything
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
    upright = ImageOps.exif_transpose(image)
    if upright.mode in ("I", "F"):
        raise ImageUnreadable(f"32-bit pixels (mode {upright.mode}) have no fixed range; save it with 8 or 16 bits")
    if upright.mode.startswith("I;16"):
        wide = np.asarray(upright).astype(np.uint32)
        grey = ((wide * 255 + 32767) // 65535).astype(np.uint8)
        return np.repeat(grey[..., None], 3, axis=2)
    if upright.has_transparency_data:
        colour = upright.convert("RGBA")
        page = Image.new("RGBA", colour.size, "white")
        upright = Image.alpha_composite(page, colour)
    return np.array(upright.convert("RGB"))
