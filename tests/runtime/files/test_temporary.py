"""Temporary folders are private, and found where $TMPDIR cannot be used."""

import errno
import os
import tempfile
from pathlib import Path

import pytest

from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.files.temporary import temporary_folder


@pytest.mark.parametrize("name", ["with space", "ünicode", "quo'te", "dollar$HOME", "semi;colon"])
def test_a_plain_one_avoids_what_a_shell_reads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / name).mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / name))
    found = temporary_folder("consisid-", plain=True)
    try:
        assert tmp_path not in found.parents and found.stat().st_mode & 0o777 == 0o700
    finally:
        found.rmdir()
    assert temporary_folder("consisid-").parent == tmp_path / name


def test_tmpdir_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    assert temporary_folder("consisid-", plain=True).parent == tmp_path


def test_without_any_place_each_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setenv("TMPDIR", str(tmp_path / "absent"))
    monkeypatch.setattr(tempfile, "mkdtemp", read_only)
    with pytest.raises(OutputUnwritable, match=r"absent: Read-only file system; /tmp: .*; set TMPDIR"):
        temporary_folder("consisid-")
