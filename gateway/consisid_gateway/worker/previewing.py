"""Thumbnail and spritesheet of a finished video. Both are JPEGs."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consisid_runtime.video import Video

_QUALITY = 85
_EDGE = 320
"""Pixels of the longer edge of a thumbnail, and of a picture of a spritesheet."""
_COLUMNS = 4
_PICTURES = 16


def thumbnail(video: Video) -> bytes:
    """The frame in the middle."""
    frames = video.frames
    return _jpeg(_small(frames[len(frames) // 2]))


def spritesheet(video: Video) -> bytes:
    """Up to sixteen frames at equal distances, in rows of four, the first one at the top left."""
    frames = video.frames
    count = min(_PICTURES, len(frames))
    pictures = [_small(frames[round(place)]) for place in np.linspace(0, len(frames) - 1, count)]
    width, height = pictures[0].size
    columns = min(_COLUMNS, count)
    sheet = Image.new("RGB", (width * columns, height * -(-count // columns)))
    for place, picture in enumerate(pictures):
        sheet.paste(picture, (place % columns * width, place // columns * height))
    return _jpeg(sheet)


def _small(frame: NDArray[np.uint8]) -> Image.Image:
    picture = Image.fromarray(frame)
    picture.thumbnail((_EDGE, _EDGE))
    return picture


def _jpeg(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=_QUALITY)
    return buffer.getvalue()
