"""Files that outlive a loss of power, are this user's alone, and are never half there."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.objects.store import Store


def modes(folder: Path) -> set[int]:
    return {stat.S_IMODE(path.stat().st_mode) for path in folder.rglob("*")}


def test_files_and_folders_are_this_users_alone(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        Store(str(tmp_path / "objects")).put("jobs/video_1/portrait", b"x")
    finally:
        os.umask(old)
    assert modes(tmp_path) == {0o700, 0o600}


def test_the_file_then_its_name_then_its_folders_are_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, synced = Store(str(tmp_path)), list[str]()

    def note(descriptor: int) -> None:
        path = Path(os.readlink(f"/proc/self/fd/{descriptor}"))
        synced.append(path.name.partition("#")[0])

    monkeypatch.setattr(os, "fsync", note)
    store.put("jobs/video_1/portrait", b"x")
    assert synced == [tmp_path.name, "jobs", "portrait", "video_1"]
    store.put("jobs/video_1/a.mp4", b"x")
    assert synced[4:] == ["a.mp4", "video_1"]


@pytest.mark.parametrize("step", ["write", "fsync", "rename"])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    store = Store(str(tmp_path))
    store.put("jobs/video_1/a.mp4", b"before")

    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    if step == "rename":
        monkeypatch.setattr(Path, "rename", full)
    elif step == "fsync":
        monkeypatch.setattr(os, "fsync", full)
    else:
        monkeypatch.setattr(os, "fdopen", full)
    for key in ("jobs/video_1/a.mp4", "jobs/video_1/b.mp4"):
        with pytest.raises(StorageUnavailable, match="or is full: No space left"):
            store.put(key, b"after")
    monkeypatch.undo()
    assert store.get("jobs/video_1/a.mp4") == b"before"
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["a.mp4"]


def test_what_a_killed_process_left_half_written_is_deleted_with_the_rest(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    store.put("jobs/video_1/portrait", b"x")
    (tmp_path / "jobs/video_1/a.mp4#123").write_bytes(b"half")
    store.delete_all("jobs/video_1/")
    assert not (tmp_path / "jobs/video_1").exists()


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageUnavailable):
        Store(str(tmp_path / "file" / "objects"))


def test_what_cannot_be_deleted_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(str(tmp_path))
    store.put("jobs/video_1/portrait", b"x")

    def refuse(*_: Any, **__: Any) -> None:
        raise PermissionError(errno.EACCES, "no")

    monkeypatch.setattr(os, "unlink", refuse)
    with pytest.raises(StorageUnavailable):
        store.delete_all("jobs/video_1/")


@pytest.mark.parametrize("left", ["portrait#1", None])
def test_what_a_killed_process_left_is_idle_too(tmp_path: Path, left: str | None) -> None:
    folder = tmp_path / "jobs" / "video_1"
    folder.mkdir(parents=True)
    if left is not None:
        (folder / left).write_bytes(b"half")
    store = Store(str(tmp_path))
    assert store.idle("jobs/", 3600.0) == []
    for path in (*folder.iterdir(), folder):
        os.utime(path, (1.0, 1.0))
    assert store.idle("jobs/", 3600.0) == ["jobs/video_1/"]
    store.delete_all("jobs/video_1/")
    assert list((tmp_path / "jobs").iterdir()) == []
