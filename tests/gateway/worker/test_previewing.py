from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from consisid_gateway.worker.previewing import spritesheet, thumbnail
from consisid_runtime.video import Video


def video(count: int, height: int = 480, width: int = 720) -> Video:
    """Frames of one grey each, lighter from one to the next."""
    greys = np.linspace(0, 255, count).astype(np.uint8)
    return Video(frames=np.broadcast_to(greys[:, None, None, None], (count, height, width, 3)).copy(), fps=8)


def opened(content: bytes) -> Image.Image:
    picture = Image.open(io.BytesIO(content))
    assert picture.format == "JPEG"
    return picture


def test_a_thumbnail_is_the_frame_in_the_middle() -> None:
    picture = opened(thumbnail(video(3)))
    assert picture.size == (320, 213)
    assert picture.getpixel((5, 5)) == pytest.approx((127, 127, 127), abs=3)


@pytest.mark.parametrize(("count", "size"), [(49, (1280, 852)), (16, (1280, 852)), (5, (1280, 426)), (1, (320, 213))])
def test_a_spritesheet_shows_the_whole_video(count: int, size: tuple[int, int]) -> None:
    picture = opened(spritesheet(video(count)))
    assert picture.size == size
    assert picture.getpixel((5, 5)) == pytest.approx((0, 0, 0), abs=3)
    if count >= 16:
        assert picture.getpixel((size[0] - 5, size[1] - 5)) == pytest.approx((255, 255, 255), abs=3)


def test_a_small_video_is_not_enlarged() -> None:
    assert opened(thumbnail(video(3, 48, 32))).size == (32, 48)
