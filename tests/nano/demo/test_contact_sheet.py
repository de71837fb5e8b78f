"""Contact sheet and animation show portraits, prompts and frames of every video."""

import io

import numpy as np
import pytest
from PIL import Image

from consisid_nano.demo.contact_sheet import GAP, SHOWN, PersonVideos, PromptVideo, animation, contact_sheet

COLOURS = ((200, 30, 30), (30, 160, 40), (40, 60, 210))


def portrait(colour: tuple[int, int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (512, 512), colour).save(out, "PNG")
    return out.getvalue()


def frames(shade: int, count: int = 17) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    """Grey frames; frame n has level shade + n."""
    levels = np.arange(shade, shade + count, dtype=np.uint8)
    return np.broadcast_to(levels[:, None, None, None], (count, 64, 96, 3)).copy()


def subjects(people: int, prompts: int, prompt: str = "Somebody nods.") -> list[PersonVideos]:
    return [
        PersonVideos(
            portrait(COLOURS[who]),
            [PromptVideo(prompt, frames(60 * who + 20 * video + 20)) for video in range(prompts)],
        )
        for who in range(people)
    ]


def levels(picture: Image.Image) -> list[int]:
    """Levels of grey areas of more than a thousand pixels, by row and column."""
    pixels = np.asarray(picture.convert("RGB")).astype(int)
    grey = np.where((np.ptp(pixels, axis=2) == 0) & (pixels[..., 0] < 250), pixels[..., 0], -1)
    found = []
    for value in np.unique(grey[grey >= 0]):
        rows, columns = np.nonzero(grey == value)
        if len(rows) > 1000:
            found.append((int(rows.min()), int(columns.min()), int(value)))
    return [value for _, _, value in sorted(found)]


def test_a_single_video_shows_six_frames_from_first_to_last_four_times_as_large() -> None:
    sheet = contact_sheet(subjects(1, 1))
    assert levels(sheet) == [20, 23, 26, 30, 33, 36]
    pixels = np.asarray(sheet)
    assert ((pixels == 20).all(axis=2)).sum() == 256 * 384
    assert (pixels == COLOURS[0]).all(axis=2).sum() >= 512 * 512, "the portrait is not made smaller"


def test_several_videos_are_strips_beside_their_person() -> None:
    sheet = contact_sheet(subjects(2, 2), note="of nothing")
    assert len(levels(sheet)) == 4 * SHOWN
    assert levels(sheet)[:SHOWN] == [20, 23, 26, 30, 33, 36]
    for colour in COLOURS[:2]:
        rows, columns = np.nonzero((np.asarray(sheet) == colour).all(axis=2))
        assert np.ptp(rows) == np.ptp(columns), "a portrait is square"
        assert columns.min() == GAP


@pytest.mark.parametrize(("people", "prompts"), [(1, 1), (2, 3)])
def test_a_long_prompt_takes_more_lines_and_no_more_width(people: int, prompts: int) -> None:
    short = contact_sheet(subjects(people, prompts))
    long = contact_sheet(subjects(people, prompts, prompt="Somebody nods and smiles and sings. " * 8))
    assert long.height > short.height
    portraits = [(np.asarray(sheet) == COLOURS[0]).all(axis=2).any(axis=0).sum() for sheet in (short, long)]
    assert long.width - portraits[1] == short.width - portraits[0]


def test_the_animation_has_a_row_a_person_a_column_a_prompt_and_one_palette() -> None:
    pictures = animation(subjects(3, 2))
    assert len(pictures) == 17
    assert len({tuple(picture.getpalette() or ()) for picture in pictures}) == 1
    first, last = (np.asarray(pictures[number].convert("RGB")).astype(int) for number in (0, 16))
    top = first.shape[0] - GAP - 3 * 160 - 2 * GAP
    for who in range(3):
        for video in range(2):
            at = top + who * (160 + GAP) + 80, GAP + 160 + GAP + video * (240 + GAP) + 120
            level = 60 * who + 20 * video + 20
            assert abs(first[at] - level).max() <= 4 and abs(last[at] - level - 16).max() <= 4
    assert (first[0, 0] == 255).all(), "paper is white"
