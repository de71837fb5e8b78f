"""MP4 files: what they contain, that they repeat, and what happens where they cannot be written."""

import ctypes
import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

from consisid_runtime.errors import MissingExtra, OutputUnwritable
from consisid_runtime.files.atomic import require_writable
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


def test_save(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")
    require_writable(path)
    assert path.read_bytes() == b"older"
    Video(mp4=b"newer", fps=8).save(str(path))
    assert path.read_bytes() == b"newer"
    assert os.listdir(tmp_path) == ["out.mp4"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


@pytest.mark.parametrize("attempt", [require_writable, Video(mp4=b"bytes", fps=8).save])
def test_unwritable_places(attempt: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OutputUnwritable, match="does not exist"):
        attempt(tmp_path / "absent" / "out.mp4")
    for folder in (tmp_path, Path("."), Path("/")):
        with pytest.raises(OutputUnwritable, match="is a folder"):
            attempt(folder)
    with pytest.raises(OutputUnwritable, match="File name too long"):
        attempt(tmp_path / ("x" * 300))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Tests may run as root, whom no folder refuses.
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputUnwritable, match="Permission denied"):
        attempt(tmp_path / "out.mp4")
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("attempt", [require_writable, Video(mp4=b"bytes", fps=8).save])
def test_what_is_no_regular_file_is_not_replaced(attempt: Any, tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe", tmp_path / "loop"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    (tmp_path / "link").symlink_to(pipe)
    for path in (pipe, tmp_path / "link", Path("/dev/null")):
        with pytest.raises(OutputUnwritable, match="device, pipe or socket"):
            attempt(path)
    for path in (loop, tmp_path / "nul\0"):
        with pytest.raises(OutputUnwritable, match="cannot write"):
            attempt(path)
    assert pipe.is_fifo() and Path("/dev/null").is_char_device() and loop.is_symlink()
    assert len(os.listdir(tmp_path)) == 3


@pytest.mark.parametrize("exists", [True, False])
def test_a_link_is_followed(exists: bool, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    target, link = tmp_path / "folder" / "real.mp4", tmp_path / "link.mp4"
    if exists:
        target.write_bytes(b"older")
    link.symlink_to("folder/real.mp4")
    require_writable(link)
    Video(mp4=b"newer", fps=8).save(link)
    assert link.is_symlink() and target.read_bytes() == b"newer"


def test_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Full(io.BytesIO):
        def write(self, _: object) -> int:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")
    with monkeypatch.context() as patch:
        patch.setattr(Path, "open", lambda *_: Full())
        with pytest.raises(OutputUnwritable, match="No space left"):
            Video(mp4=b"newer", fps=8).save(path)
    assert os.listdir(tmp_path) == ["out.mp4"] and path.read_bytes() == b"older"


@pytest.mark.parametrize("refused", ["mount point", "closed folder"])
def test_a_file_that_cannot_be_replaced_is_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """A file that is bind-mounted into a container, and one in a folder of somebody else's."""

    def refuse(*_: object, **__: object) -> None:
        number = errno.EBUSY if refused == "mount point" else errno.EACCES
        raise OSError(number, os.strerror(number))

    path = tmp_path / "out.mp4"
    path.write_bytes(b"older and longer")
    inode = path.stat().st_ino
    monkeypatch.setattr(os, "replace", refuse)
    if refused == "closed folder":
        monkeypatch.setattr(Path, "touch", refuse)
    require_writable(path)
    Video(mp4=b"newer", fps=8).save(path)
    assert path.read_bytes() == b"newer" and path.stat().st_ino == inode
    assert os.listdir(tmp_path) == ["out.mp4"]


def test_a_video_that_cannot_be_put_into_its_place_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(number: int) -> Any:
        def call(*_: object) -> None:
            raise OSError(number, os.strerror(number))

        return call

    path = tmp_path / "out.mp4"
    path.write_bytes(b"older")
    monkeypatch.setattr(os, "replace", refuse(errno.EBUSY))
    monkeypatch.setattr(os, "posix_fallocate", refuse(errno.ENOSPC))
    with pytest.raises(OutputUnwritable, match=r"No space left.*the content was kept in ") as error:
        Video(mp4=b"newer and longer", fps=8).save(path)
    assert path.read_bytes() == b"older"
    assert Path(str(error.value).rpartition(" ")[2]).read_bytes() == b"newer and longer"


def test_a_really_mounted_file(tmp_path: Path) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    path, outside = tmp_path / "out.mp4", tmp_path / "outside.mp4"
    path.write_bytes(b"")
    outside.write_bytes(b"older")
    bind, read_only = 4096, 4096 | 32 | 1
    if libc.mount(str(outside).encode(), str(path).encode(), b"", bind, b""):
        pytest.skip(f"no file can be mounted here: {os.strerror(ctypes.get_errno())}")
    try:
        require_writable(path)
        Video(mp4=b"newer", fps=8).save(path)
        assert outside.read_bytes() == b"newer"
        libc.mount(b"", str(path).encode(), b"", read_only, b"")
        with pytest.raises(OutputUnwritable, match="Read-only file system"):
            require_writable(path)
    finally:
        libc.umount(str(path).encode())


def test_a_protected_file_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(path: Path, flags: int) -> int:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    path = tmp_path / "out.mp4"
    path.write_bytes(b"mine")
    path.chmod(0o444)
    monkeypatch.setattr(os, "open", closed)  # root may write it
    for attempt in (require_writable, Video(mp4=b"newer", fps=8).save):
        with pytest.raises(OutputUnwritable, match="Permission denied"):
            attempt(path)
    assert path.read_bytes() == b"mine"


def test_a_private_file_stays_private(tmp_path: Path) -> None:
    path = tmp_path / "out.mp4"
    path.touch(mode=0o600)
    Video(mp4=b"newer", fps=8).save(path)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("path", ["/dev/stdout", "/proc/self/fd/1"])
def test_standard_output_is_no_file(path: str) -> None:
    script = f"from consisid_runtime.files.atomic import require_writable; require_writable({path!r})"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert "device, pipe or socket" in done.stderr


def test_interrupted_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        Video(mp4=b"newer", fps=8).save(tmp_path / "out.mp4")
    assert os.listdir(tmp_path) == []


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
