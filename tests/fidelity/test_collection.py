from pathlib import Path

import numpy as np
import pytest

from consisid_fidelity.collection import read_collection
from consisid_fidelity.collection_writer import CollectionWriter, encode_lossless
from consisid_fidelity.errors import CollectionInvalid, VideoUnreadable
from consisid_runtime.errors import ImageTooSmall, ImageUnreadable, OutputUnwritable
from consisid_runtime.mp4 import Frames, encode_mp4

RNG = np.random.default_rng(0)
NOISE: Frames = RNG.integers(0, 256, (5, 48, 64, 3), dtype=np.uint8)
PORTRAIT: Frames = RNG.integers(0, 256, (70, 80, 3), dtype=np.uint8)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One video with a reference and labels, one without."""
    out = tmp_path / "videos"
    writer = CollectionWriter(out)
    writer.add("one", NOISE, PORTRAIT, 'a person, "smiling"', fps=8, reference=255 - NOISE, labels={"colour": "red"})
    writer.add("two", NOISE[:3], PORTRAIT, "a person", fps=8)
    return out


def rewrite(folder: Path, table: str) -> Path:
    (folder / "videos.csv").write_text(table, encoding="utf-8")
    return folder


def test_what_was_written_is_read_back_bit_for_bit(folder: Path) -> None:
    one, two = read_collection(folder)
    assert (one.name, one.prompt, one.labels) == ("one.mkv", 'a person, "smiling"', {"colour": "red"})
    assert np.array_equal(one.frames(), NOISE)
    reference = one.reference_frames()
    assert reference is not None and np.array_equal(reference, 255 - NOISE)
    assert np.array_equal(one.portrait_pixels(), PORTRAIT)
    assert two.labels == {} and two.reference_frames() is None and len(two.frames()) == 3


def test_the_same_frames_give_the_same_bytes() -> None:
    assert encode_lossless(NOISE, 8) == encode_lossless(NOISE, 8)


def test_other_systems_files_are_read(folder: Path) -> None:
    import av

    (folder / "theirs.mp4").write_bytes(encode_mp4(np.full((4, 32, 32, 3), 200, np.uint8), 8))
    with av.open(str(folder / "theirs.gif"), "w") as container:
        stream = container.add_stream("gif", rate=8)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "rgb8"
        for level in (0, 255, 0):
            image = np.full((32, 32, 3), level, np.uint8)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24").reformat(format="rgb8")):
                container.mux(packet)
        for packet in stream.encode(None):
            container.mux(packet)
    table = "\ufeffprompt,video,portrait\na person,theirs.mp4,one.png\na person,theirs.gif,one.png\n"
    mp4, gif = read_collection(rewrite(folder, table))
    assert mp4.frames().shape == (4, 32, 32, 3) and np.abs(mp4.frames().astype(int) - 200).max() <= 2
    assert gif.frames().mean(axis=(1, 2, 3)) == pytest.approx([0, 255, 0], abs=4)  # GIF has a palette


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("", "lacks the columns video, portrait, prompt"),
        ("video,prompt\none.mkv,a\n", "lacks the columns portrait; its first line is 'video,prompt'"),
        ("video,portrait,prompt\n", "has no rows"),
        ("video,portrait,prompt,\none.mkv,one.png,a,\n", "columns without a name"),
        ("video,portrait,prompt,x,x\none.mkv,one.png,a,b,c\n", "with the same name"),
        ("video,portrait,prompt\none.mkv,one.png,a person, smiling\n", "row 1: 4 cells for 3 columns"),
        ("video,portrait,prompt\none.mkv,one.png, \n", "row 1: prompt is empty"),
        ("video,portrait,prompt\ntwo.mkv,two.png,a\nno.mkv,one.png,a\n", "row 2: video 'no.mkv' is not a file"),
        ("video,portrait,prompt\none.mkv,no.png,a\n", "row 1: portrait 'no.png' is not a file"),
        ("video,portrait,prompt,reference\none.mkv,one.png,a,no.mkv\n", "row 1: reference 'no.mkv' is not a file"),
        ("video,portrait,prompt\n../secret.mkv,one.png,a\n", "row 1: video '../secret.mkv' is outside the folder"),
        ("video,portrait,prompt\n/etc/hostname,one.png,a\n", "row 1: video '/etc/hostname' is outside the folder"),
        ("video,portrait,prompt\nlink.mkv,one.png,a\n", "row 1: video 'link.mkv' is outside the folder"),
        ("video,portrait,prompt\n.,one.png,a\n", "row 1: video '.' is not a file"),
        ("video,portrait,prompt\none.mkv,one.png,a\none.mkv,two.png,b\n", "row 1 names the same video"),
        ('video,portrait,prompt\none.mkv,one.png,"a\n', "not a table of comma-separated values"),
    ],
)
def test_an_invalid_table_is_refused_with_the_reason(folder: Path, table: str, message: str) -> None:
    (folder.parent / "secret.mkv").write_bytes(b"x")
    (folder / "link.mkv").symlink_to(folder.parent / "secret.mkv")
    with pytest.raises(CollectionInvalid) as caught:
        read_collection(rewrite(folder, table))
    assert message in str(caught.value)


def test_a_table_that_is_missing_or_not_text_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CollectionInvalid, match="cannot be read: No such file"):
        read_collection(tmp_path)
    (folder / "videos.csv").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CollectionInvalid, match="UTF-8"):
        read_collection(folder)


@pytest.mark.parametrize("content", [b"", b"no video at all" * 50, encode_mp4(NOISE, 8)[:600]])
def test_an_unreadable_video_names_its_row(folder: Path, content: bytes) -> None:
    (folder / "two.mkv").write_bytes(content)
    with pytest.raises(VideoUnreadable, match=r"row 2 \(two\.mkv\): two\.mkv is not a video"):
        read_collection(folder)[1].frames()


def test_a_file_with_only_sound_is_refused(folder: Path) -> None:
    import av

    with av.open(str(folder / "two.mkv"), "w", format="matroska") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        sound = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        sound.sample_rate = 8000
        container.mux(stream.encode(sound))
    with pytest.raises(VideoUnreadable, match="row 2"):
        read_collection(folder)[1].frames()


def test_an_unusable_portrait_names_its_row_and_keeps_its_code(folder: Path) -> None:
    (folder / "one.png").write_bytes(b"no picture")
    with pytest.raises(ImageUnreadable, match=r"row 1 \(one\.mkv\): portrait one\.png"):
        read_collection(folder)[0].portrait_pixels()
    writer = CollectionWriter(folder.parent / "small")
    writer.add("tiny", NOISE, PORTRAIT[:10, :10], "a person", fps=8)
    with pytest.raises(ImageTooSmall, match="row 1"):
        read_collection(folder.parent / "small")[0].portrait_pixels()


def test_a_folder_with_other_content_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(OutputUnwritable, match="has content"):
        CollectionWriter(tmp_path)
    with pytest.raises(OutputUnwritable, match="has content"):
        CollectionWriter(folder / "one.png")


def test_an_interrupted_collection_is_resumed(folder: Path) -> None:
    (folder / "three.mkv").write_bytes(b"truncated before it entered the table")
    writer = CollectionWriter(folder)
    assert "two" in writer and "three" not in writer
    writer.add("three", NOISE, PORTRAIT, "a person", fps=8, labels={"place": "beach"})
    one, two, three = read_collection(folder)
    assert one.labels == {"colour": "red"} and two.labels == {} and three.labels == {"place": "beach"}
    assert np.array_equal(three.frames(), NOISE)


@pytest.mark.parametrize("name", ["", "../up", "a/b", "one"])
def test_names_that_are_used_or_not_plain_are_refused(tmp_path: Path, name: str) -> None:
    writer = CollectionWriter(tmp_path / "videos")
    writer.add("one", NOISE, PORTRAIT, "a person", fps=8)
    with pytest.raises(ValueError, match="new plain file name"):
        writer.add(name, NOISE, PORTRAIT, "a person", fps=8)
    with pytest.raises(ValueError, match="labels cannot be named prompt"):
        writer.add("two", NOISE, PORTRAIT, "a person", fps=8, labels={"prompt": "x"})
