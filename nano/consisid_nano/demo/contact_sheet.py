"""Shows videos beside their portraits and prompts, as a still contact sheet or as an animation."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

INK, PALE, PAPER = (24, 24, 28), (120, 120, 128), (255, 255, 255)
GAP = 10  # pixels between pictures
SHOWN = 6  # frames of each video on the contact sheet


@dataclass(frozen=True, slots=True)
class PromptVideo:
    """One video: its prompt, and its frames uint8 [n, height, width, 3] RGB."""

    prompt: str
    frames: NDArray[np.uint8]


@dataclass(frozen=True, slots=True)
class PersonVideos:
    """One person: the bytes of a portrait file, and their videos."""

    portrait: bytes
    videos: list[PromptVideo] = field(default_factory=list)


def contact_sheet(people: Sequence[PersonVideos], note: str = "") -> Image.Image:
    """Show each person's portrait and, beside it, for each video the prompt above `SHOWN` frames spread over the video.

    The frames of a single video are twice as high. `note` is written below in small type.
    """
    single = len(people) == 1 and len(people[0].videos) == 1
    height, columns = (256, SHOWN // 2) if single else (128, SHOWN)
    blocks = [_block(person, height, columns) for person in people]
    return _framed(_stacked(blocks), note)


def animation(people: Sequence[PersonVideos], height: int = 160) -> list[Image.Image]:
    """Show people in rows and prompts in columns, `height` pixels a row: one picture a frame, all with one palette."""
    frames = min(len(video.frames) for person in people for video in person.videos)
    pictures = [_framed(_grid(people, number, height), "") for number in range(frames)]
    # A palette for each frame would make unchanged areas flicker.
    palette = _stacked(pictures[:: max(1, frames // 4)]).quantize(256, method=Image.Quantize.MEDIANCUT)
    levels = np.array(palette.getpalette()).reshape(-1, 3)
    levels[levels.min(axis=1) > 247] = PAPER  # Pillow's colour lookup is accurate to four levels only
    palette.putpalette(levels.ravel().tolist())
    return [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in pictures]


def _block(person: PersonVideos, height: int, columns: int) -> Image.Image:
    right = _stacked([_strip(video, height, columns) for video in person.videos])
    return _beside([_resized(_open(person.portrait), min(right.height, 640)), right])


def _strip(video: PromptVideo, height: int, columns: int) -> Image.Image:
    chosen = np.linspace(0, len(video.frames) - 1, SHOWN).round().astype(int)
    frames = [_frame(video, number, height) for number in chosen]
    rows = [_beside(frames[start : start + columns]) for start in range(0, SHOWN, columns)]
    return _stacked([_text(video.prompt, rows[0].width, height // 12 + 7), *rows])


def _grid(people: Sequence[PersonVideos], number: int, height: int) -> Image.Image:
    rows = [
        [_resized(_open(person.portrait), height), *(_frame(video, number, height) for video in person.videos)]
        for person in people
    ]
    columns = zip(people[0].videos, rows[0][1:], strict=True)
    captions = [_text(video.prompt, picture.width, 16) for video, picture in columns]
    head = _beside([Image.new("RGB", (rows[0][0].width, 1), PAPER), *captions])
    return _stacked([head, *(_beside(row) for row in rows)])


def _open(portrait: bytes) -> Image.Image:
    return Image.open(io.BytesIO(portrait)).convert("RGB")


def _frame(video: PromptVideo, number: int, height: int) -> Image.Image:
    return _resized(Image.fromarray(video.frames[number]), height)


def _resized(picture: Image.Image, height: int) -> Image.Image:
    size = (round(picture.width * height / picture.height), height)
    return picture.resize(size, Image.Resampling.LANCZOS)


def _text(text: str, width: int, size: int, colour: tuple[int, int, int] = INK) -> Image.Image:
    """Draw the text, wrapped at `width` pixels."""
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
