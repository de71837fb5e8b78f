"""Where videos are saved, and what happens where they cannot be written."""

import ctypes
import errno
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.errors import InvalidOption, OutputUnwritable
from consisid_runtime.files.atomic import require_writable
from consisid_runtime.video import Video, require_video_path


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
    (tmp_path / "folder.mp4").mkdir()
    with pytest.raises(OutputUnwritable, match="is a folder"):
        attempt(tmp_path / "folder.mp4")
    with pytest.raises(OutputUnwritable, match="File name too long"):
        attempt(tmp_path / ("x" * 300 + ".mp4"))

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    # Tests may run as root, whom no folder refuses.
    monkeypatch.setattr(Path, "touch", refuse)
    with pytest.raises(OutputUnwritable, match="Permission denied"):
        attempt(tmp_path / "out.mp4")
    assert os.listdir(tmp_path) == ["folder.mp4"]


@pytest.mark.parametrize("folder", [Path("."), Path("/")])
def test_a_folder_is_no_place_for_a_file(folder: Path) -> None:
    with pytest.raises(OutputUnwritable, match="is a folder"):
        require_writable(folder)


@pytest.mark.parametrize("name", ["out.gif", "out.webm", "out.png", "out", "out.mp4 ", "out.mp4.png", ".mp4", "mp4"])
def test_a_name_that_is_not_an_mp4_files_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"must end in \.mp4"):
        Video(mp4=b"bytes", fps=8).save(tmp_path / name)
    assert os.listdir(tmp_path) == []
    Video(mp4=b"bytes", fps=8).save(tmp_path / "out.MP4")


def test_the_portrait_is_known_by_any_of_its_names(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    portrait, other = tmp_path / "me.MP4", tmp_path / "other.mp4"
    portrait.write_bytes(b"portrait")
    other.write_bytes(b"portrait")
    (tmp_path / "link.mp4").symlink_to("me.MP4")
    (tmp_path / "second.mp4").hardlink_to(portrait)
    (tmp_path / "folder").mkdir()
    (tmp_path / "here").symlink_to(".")
    monkeypatch.chdir(tmp_path)
    for out in ("me.MP4", "./me.MP4", "link.mp4", "second.mp4", "folder/../me.MP4", "here/link.mp4", str(portrait)):
        for image in (portrait, Path("link.mp4"), "here/second.mp4"):
            with pytest.raises(InvalidOption, match="is the portrait itself"):
                require_video_path(out, image)
    for out in ("other.mp4", "absent.mp4", "absent/out.mp4", "nul\0.mp4"):
        require_video_path(out, portrait)
    require_video_path("out.mp4", "absent.png")


@pytest.mark.parametrize("attempt", [require_writable, Video(mp4=b"bytes", fps=8).save])
def test_what_is_no_regular_file_is_not_replaced(attempt: Any, tmp_path: Path) -> None:
    pipe, loop = tmp_path / "pipe.mp4", tmp_path / "loop.mp4"
    os.mkfifo(pipe)
    loop.symlink_to(loop)
    (tmp_path / "link.mp4").symlink_to(pipe)
    (tmp_path / "null.mp4").symlink_to("/dev/null")
    for path in (pipe, tmp_path / "link.mp4", tmp_path / "null.mp4"):
        with pytest.raises(OutputUnwritable, match="device, pipe or socket"):
            attempt(path)
    for path in (loop, tmp_path / "nul\0.mp4"):
        with pytest.raises(OutputUnwritable, match="cannot write"):
            attempt(path)
    assert pipe.is_fifo() and Path("/dev/null").is_char_device() and loop.is_symlink()
    assert len(os.listdir(tmp_path)) == 4


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
