"""Videos as pictures: who it is, what they were asked to do, what they do."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, PALE, PAPER = (24, 24, 28), (120, 120, 128), (255, 255, 255)
GAP, TILES = 10, 6


@dataclass(frozen=True, slots=True)
class Take:
    """One video: its prompt, and frames uint8 [n, height, width, 3] RGB."""

    prompt: str
    frames: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class Part:
    """One person: a portrait, an image file's bytes, and their videos."""

    portrait: bytes
    takes: list[Take] = field(default_factory=list)


def contact_sheet(cast: Sequence[Part], note: str = "") -> Image.Image:
    """For every person the portrait, and beside it for each take the prompt above frames spread over the video.

    A single video gets frames twice as high. `note` stands below, small.
    """
    alone = len(cast) == 1 and len(cast[0].takes) == 1
    blocks = [_block(part, 256 if alone else 128, TILES // 2 if alone else TILES) for part in cast]
    return _framed(_stacked(blocks), note)


def animation(cast: Sequence[Part], tile: int = 160) -> list[Image.Image]:
    """The same people, a row each, and their videos, a column for each prompt: one picture a frame, of one palette."""
    frames = min(len(take.frames) for part in cast for take in part.takes)
    moments = [_framed(_grid(cast, number, tile), "") for number in range(frames)]
    # One palette for all: one for each frame would make what stands still flicker.
    palette = _stacked(moments[:: max(1, frames // 4)]).quantize(256, method=Image.Quantize.MEDIANCUT)
    levels = np.array(palette.getpalette()).reshape(-1, 3)
    levels[levels.min(axis=1) > 247] = PAPER  # Pillow looks colours up to within four levels
    palette.putpalette(levels.ravel().tolist())
    return [moment.quantize(palette=palette, dither=Image.Dither.NONE) for moment in moments]


def _block(part: Part, tile: int, columns: int) -> Image.Image:
    strips = [_strip(take, tile, columns) for take in part.takes]
    right = _stacked(strips)
    return _beside([_enlarged(_open(part.portrait), min(right.height, 640)), right])


def _strip(take: Take, tile: int, columns: int) -> Image.Image:
    chosen = np.linspace(0, len(take.frames) - 1, TILES).round().astype(int)
    tiles = [_enlarged(Image.fromarray(take.frames[number]), tile) for number in chosen]
    rows = [_beside(tiles[start : start + columns]) for start in range(0, TILES, columns)]
    return _stacked([_text(take.prompt, rows[0].width, tile // 12 + 7), *rows])


def _grid(cast: Sequence[Part], number: int, tile: int) -> Image.Image:
    rows = [
        [
            _enlarged(_open(part.portrait), tile),
            *(_enlarged(Image.fromarray(t.frames[number]), tile) for t in part.takes),
        ]
        for part in cast
    ]
    captions = [_text(take.prompt, picture.width, 16) for take, picture in zip(cast[0].takes, rows[0][1:], strict=True)]
    head = _beside([Image.new("RGB", (rows[0][0].width, 1), PAPER), *captions])
    return _stacked([head, *(_beside(row) for row in rows)])


def _open(portrait: bytes) -> Image.Image:
    return Image.open(io.BytesIO(portrait)).convert("RGB")


def _enlarged(picture: Image.Image, height: int) -> Image.Image:
    size = (round(picture.width * height / picture.height), height)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _text(text: str, width: int, size: int, colour: tuple[int, int, int] = INK) -> Image.Image:
    """The text in as many lines as `width` pixels need."""
    font = ImageFont.load_default(size)
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and font.getlength(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    step = round(1.3 * size)
    picture = Image.new("RGB", (width, step * len(lines)), PAPER)
    draw = ImageDraw.Draw(picture)
    for number, line in enumerate(lines):
        draw.text((0, number * step), line, fill=colour, font=font)
    return picture


def _stacked(pictures: Sequence[Image.Image]) -> Image.Image:
    height = sum(picture.height for picture in pictures) + GAP * (len(pictures) - 1)
    whole = Image.new("RGB", (max(picture.width for picture in pictures), height), PAPER)
    top = 0
    for picture in pictures:
        whole.paste(picture, (0, top))
        top += picture.height + GAP
    return whole


def _beside(pictures: Sequence[Image.Image]) -> Image.Image:
    width = sum(picture.width for picture in pictures) + GAP * (len(pictures) - 1)
    whole = Image.new("RGB", (width, max(picture.height for picture in pictures)), PAPER)
    left = 0
    for picture in pictures:
        whole.paste(picture, (left, 0))
        left += picture.width + GAP
    return whole


def _framed(picture: Image.Image, note: str) -> Image.Image:
    if note:
        picture = _stacked([picture, _text(note, picture.width, 14, PALE)])
    whole = Image.new("RGB", (picture.width + 2 * GAP, picture.height + 2 * GAP), PAPER)
    whole.paste(picture, (GAP, GAP))
    return whole
