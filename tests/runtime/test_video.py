"""MP4 files: what they contain, and that they repeat."""

import io
import os
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from consisid_runtime.errors import MissingExtra
from consisid_runtime.video import Frames, Video, decode_mp4, encode_mp4


def moving(count: int, height: int = 64, width: int = 96) -> Frames:
    """A smooth texture that moves."""
    y, x = np.mgrid[:height, :width]
    waves = [[np.sin((x + 3 * i) / 9 + c / 4) * np.cos((y - i) / 7 + c / 4) for c in range(3)] for i in range(count)]
    return np.moveaxis(127 + 120 * np.array(waves), 1, -1).round().astype(np.uint8)


def boxes(mp4: bytes) -> list[str]:
    """The types of the file's top-level boxes (ISO 14496-12)."""
    names, at = [], 0
    while at < len(mp4):
        names.append(mp4[at + 4 : at + 8].decode())
        at += int.from_bytes(mp4[at : at + 4], "big")
    return names


@pytest.mark.parametrize("count", [1, 9, 49, 200])
def test_mp4_holds_the_frames(count: int) -> None:
    frames = moving(count)
    decoded = decode_mp4(encode_mp4(frames, 8))
    assert decoded.shape == frames.shape and decoded.dtype == np.uint8
    assert 10 * np.log10(255**2 / np.mean((decoded.astype(float) - frames) ** 2)) > 36


def test_compression_is_about_invisible() -> None:
    """40.1 dB at crf 17, 39.2 dB at crf 20."""
    frames = moving(9)
    decoded = decode_mp4(encode_mp4(frames, 8))
    assert 10 * np.log10(255**2 / np.mean((decoded.astype(float) - frames) ** 2)) > 39.6


@pytest.mark.parametrize("colour", [(255, 0, 0), (0, 255, 0), (0, 0, 255), (90, 160, 30), (255, 255, 255)])
def test_colours_survive(colour: tuple[int, int, int]) -> None:
    frames = np.full((9, 32, 48, 3), colour, np.uint8)
    assert np.abs(decode_mp4(encode_mp4(frames, 8)).astype(int) - frames).max() <= 3


def test_stream_says_what_it_is() -> None:
    with av.open(io.BytesIO(encode_mp4(moving(17), 12))) as container:
        stream = container.streams.video[0]
        codec = stream.codec_context
        assert (codec.name, codec.pix_fmt, stream.frames, str(stream.average_rate)) == ("h264", "yuv420p", 17, "12")
        # 1 is BT.709 in all three tables of ISO 23091-2, and in ffmpeg the limited range
        assert (codec.color_primaries, codec.color_trc, codec.colorspace, codec.color_range) == (1, 1, 1, 1)
        assert "creation_time" not in container.metadata | stream.metadata


def test_index_comes_before_the_data_and_nobody_signs() -> None:
    mp4 = encode_mp4(moving(49), 8)
    names = boxes(mp4)
    assert names.index("moov") < names.index("mdat")
    assert b"x264" not in mp4 and b"Lavf" not in mp4 and b"Lavc" not in mp4


def test_same_frames_same_bytes_whatever_the_heap_holds() -> None:
    """x264 has read memory it never wrote: with B-frames these encodings differ, with a macroblock tree some do."""
    generator = np.random.default_rng(0)
    seen = set()
    for _ in range(6):
        garbage = [generator.integers(0, 256, size, np.uint8) for size in generator.integers(16, 300_000, 150)]
        del garbage
        seen.add(encode_mp4(moving(49), 8))
    assert len(seen) == 1


@pytest.mark.parametrize("frames", [np.zeros((2, 15, 16, 3), np.uint8), np.zeros((0, 16, 16, 3), np.uint8)])
def test_frames_that_no_mp4_can_hold(frames: Frames) -> None:
    with pytest.raises(ValueError, match="frames must be"):
        encode_mp4(frames, 8)


def test_either_form_gives_the_other() -> None:
    frames = moving(9)
    mp4 = encode_mp4(frames, 8)
    assert Video(frames=frames, fps=8).mp4 == mp4
    assert np.array_equal(Video(mp4=mp4, fps=8).frames, decode_mp4(mp4))
    both = Video(mp4=mp4, frames=frames, fps=8, info={"seed": 3})
    assert both.frames is frames and both.mp4 is mp4 and both.info == {"seed": 3}
    with pytest.raises(ValueError, match="neither"):
        Video(fps=8)


def test_absent_pyav_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match="PyAV"):
        _ = Video(mp4=b"bytes", fps=8).frames


def test_client_side_needs_neither_torch_nor_pyav(tmp_path: Path) -> None:
    script = "import sys; from consisid_runtime.video import Video; Video(mp4=b'x', fps=8).save(sys.argv[1]); "
    script += "print({'av', 'torch'} & set(sys.modules))"
    run = subprocess.run(
        [sys.executable, "-c", script, tmp_path / "out.mp4"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.strip() == "set()"
