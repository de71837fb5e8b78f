"""What one process verified is not hashed by those that it starts, unless somebody touched it."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from consisid_runtime import bundle as subject
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import BundleCorrupt
from consisid_runtime.files import identity
from consisid_runtime.files.ownership import sha256

NAME = "dit_modulate.onnx"


@pytest.fixture
def copy(untrained_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(untrained_bundle, tmp_path / "bundle")
    return tmp_path / "bundle"


@pytest.fixture
def hashed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are hashed; the test's own files count as old enough."""
    names: list[str] = []
    monkeypatch.setattr(subject, "sha256", lambda path: names.append(path.name) or sha256(path))
    monkeypatch.setattr(identity, "SETTLED", 0)
    return names


def handed_on(folder: Path, hashed: list[str]) -> str:
    """By a process that verified all; the hashes that this took are forgotten."""
    bundle = Bundle.open(folder)
    bundle.verify()
    assert len(hashed) == len(bundle.manifest["files"])
    hashed.clear()
    return bundle.handover()


def receiving(folder: Path, handover: str) -> Bundle:
    bundle = Bundle.open(folder)
    bundle.accept(handover)
    return bundle


def test_an_untouched_file_is_not_hashed_again(copy: Path, hashed: list[str], tmp_path: Path) -> None:
    handover = handed_on(copy, hashed)
    (tmp_path / "link").symlink_to(copy)  # the server's models see a link to the folder
    bundle = receiving(tmp_path / "link", handover)
    for name in bundle.manifest["files"]:
        assert bundle.file(name) == tmp_path / "link" / name
    assert hashed == []
    assert receiving(copy, bundle.handover()).file(NAME) == copy / NAME and hashed == [], "and so on"
    bundle.verify()
    assert len(hashed) == len(bundle.manifest["files"]), "`verify` believes nothing"


def test_a_file_that_changed_after_it_was_verified_is_refused(copy: Path, hashed: list[str]) -> None:
    """Size and time of modification are as before."""
    handover = handed_on(copy, hashed)
    path, before = copy / NAME, (copy / NAME).stat()
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    with pytest.raises(BundleCorrupt, match=NAME):
        receiving(copy, handover).file(NAME)
    assert hashed == [NAME]


@pytest.mark.parametrize("part", range(5), ids=["device", "inode", "size", "modified", "changed"])
def test_every_part_of_the_identity_counts(copy: Path, hashed: list[str], part: int) -> None:
    handover = json.loads(handed_on(copy, hashed))
    handover["files"][NAME][part] += 1
    assert receiving(copy, json.dumps(handover)).file(NAME) == copy / NAME
    assert hashed == [NAME]


def test_a_file_changed_while_it_is_hashed_is_not_handed_on_as_it_is_then(
    copy: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def slow(path: Path) -> str:
        found = sha256(path)
        path.write_bytes(b"x" + path.read_bytes()[1:])
        return found

    sender = Bundle.open(copy)
    with monkeypatch.context() as patched:
        patched.setattr(subject, "sha256", slow)
        sender.file(NAME)
    with pytest.raises(BundleCorrupt, match=NAME):
        receiving(copy, sender.handover()).file(NAME)


def test_a_file_that_was_just_written_is_hashed_again(
    copy: Path, hashed: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its times may stay the same when it is written again within one step of the clock."""
    monkeypatch.setattr(identity, "SETTLED", 3600 * 10**9)
    assert receiving(copy, handed_on(copy, hashed)).file(NAME) == copy / NAME
    assert hashed == [NAME]


def test_what_another_bundle_had_is_not_believed(copy: Path, hashed: list[str]) -> None:
    handover = json.loads(handed_on(copy, hashed)) | {"bundle": "another"}
    receiving(copy, json.dumps(handover)).file(NAME)
    assert hashed == [NAME]
