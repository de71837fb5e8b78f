"""MP4 files: what they contain, and that they repeat."""

import io
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest

from consisid_runtime.errors import MissingExtra
from consisid_runtime.mp4 import Frames, Mp4Writer, decode_mp4, encode_beside, encode_mp4
from consisid_runtime.video import Video


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


@pytest.mark.parametrize("sizes", [[17], [9, 8], [1] * 17], ids=str)
def test_an_mp4_made_beside_its_frames_has_the_same_bytes(sizes: list[int]) -> None:
    frames = moving(17)
    chunks = iter(np.split(frames, np.cumsum(sizes)[:-1]))
    found, mp4 = encode_beside(chunks, frames.shape, 8)
    assert np.array_equal(found, frames) and mp4 == encode_mp4(frames, 8)


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """What happens in which order; at the end no thread is left."""
    seen: list[str] = []
    add = Mp4Writer.add

    def noting(self: Mp4Writer, frames: Frames) -> None:
        seen.append(f"encoder begins {frames[0, 0, 0, 0]}")
        if frames[0, 0, 0, 0] == 66:
            raise RuntimeError("full")
        time.sleep(0.05)
        add(self, frames)
        seen.append(f"encoder ends {frames[0, 0, 0, 0]}")

    monkeypatch.setattr(Mp4Writer, "add", noting)
    before = threading.active_count()
    yield seen
    assert threading.active_count() == before


def chunks(steps: list[str], *values: int) -> Iterator[Frames]:
    """Two frames of each value; a negative one is a cancel."""
    for value in values:
        steps.append(f"make {value}")
        if value < 0:
            raise KeyboardInterrupt
        yield np.full((2, 16, 16, 3), value, np.uint8)


def test_the_next_chunk_is_made_while_one_is_encoded_and_at_most_one_waits(steps: list[str]) -> None:
    encode_beside(chunks(steps, 1, 2, 3), (6, 16, 16, 3), 8)
    place = {what: steps.index(what) for what in steps}
    assert place["make 2"] < place["encoder ends 1"] < place["make 3"] < place["encoder ends 2"]


def test_who_cancels_between_chunks_ends_the_encoder_too(steps: list[str]) -> None:
    with pytest.raises(KeyboardInterrupt):
        encode_beside(chunks(steps, 1, -1, 2), (6, 16, 16, 3), 8)
    assert "make 2" not in steps and steps[-1] == "encoder ends 1"


def test_an_encoder_that_fails_ends_the_decoding(steps: list[str]) -> None:
    with pytest.raises(RuntimeError, match="full"):
        encode_beside(chunks(steps, 66, 1, 2), (6, 16, 16, 3), 8)
    assert "make 1" in steps and "make 2" not in steps


@pytest.mark.parametrize("given", [1, 3])
def test_an_mp4_of_another_number_of_frames_is_none(steps: list[str], given: int) -> None:
    with pytest.raises(ValueError, match=r"begun for 4 frames and got 2|could not broadcast"):
        encode_beside(chunks(steps, *range(given)), (4, 16, 16, 3), 8)


def test_without_pyav_no_chunk_is_made(steps: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MissingExtra, match="PyAV"):
        encode_beside(chunks(steps, 1), (2, 16, 16, 3), 8)
    assert steps == []


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
