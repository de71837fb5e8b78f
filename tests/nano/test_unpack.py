"""nano is unpacked atomically, and only if it is intact."""

import json
import shutil
from pathlib import Path

import pytest

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_nano import digests, package
from consisid_nano.marker import MARKER
from consisid_nano.unpack import unpack_nano
from consisid_nano.untrained.write import write_untrained
from consisid_runtime.errors import CheckpointInvalid, MissingExtra, OutputUnwritable


@pytest.fixture
def shipped(untrained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Checkpoint folder of a consisid-nano that holds the untrained checkpoint."""
    monkeypatch.setattr(package, "PACKAGE", tmp_path / "consisid_nano")
    folder = tmp_path / "consisid_nano" / "checkpoint"
    shutil.copytree(untrained, folder, ignore=shutil.ignore_patterns(MARKER))
    digests.write()
    return folder


def test_unpacking_is_idempotent(shipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "nano"
    assert unpack_nano(out)
    assert Checkpoint.open(out)
    assert json.loads((out / MARKER).read_bytes())["files"] == digests.verified("checkpoint")
    before = (out / MARKER).stat().st_mtime_ns
    assert not unpack_nano(out)
    assert (out / MARKER).stat().st_mtime_ns == before


def test_a_damaged_copy_and_the_untrained_one_are_replaced(shipped: Path, tmp_path: Path) -> None:
    out = tmp_path / "nano"
    unpack_nano(out)
    config = out / "vae" / "config.json"
    config.write_text("{}")
    assert unpack_nano(out)
    assert config.read_bytes() == (shipped / "vae" / "config.json").read_bytes()
    assert write_untrained(out) and unpack_nano(out)


def test_a_folder_with_other_content_is_left_unchanged(shipped: Path, tmp_path: Path) -> None:
    (tmp_path / "nano").mkdir()
    (tmp_path / "nano" / "diary").write_text("dear")
    with pytest.raises(OutputUnwritable, match="content that is not ours"):
        unpack_nano(tmp_path / "nano")


def test_damaged_data_is_not_unpacked(shipped: Path, tmp_path: Path) -> None:
    (shipped / "vae" / "config.json").write_text("{}")
    with pytest.raises(CheckpointInvalid, match=r"vae/config\.json.*--force-reinstall consisid-nano"):
        unpack_nano(tmp_path / "nano")
    assert not (tmp_path / "nano").exists()
    (shipped.parent / digests.FILE).write_text("{}")
    with pytest.raises(CheckpointInvalid, match=digests.FILE):
        unpack_nano(tmp_path / "nano")


def test_a_distribution_without_data_is_an_error(shipped: Path, tmp_path: Path) -> None:
    shutil.rmtree(shipped)
    with pytest.raises(MissingExtra, match=r"has no checkpoint; .* pip install consisid-nano"):
        unpack_nano(tmp_path / "nano")
