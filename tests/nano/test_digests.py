"""The distribution's data is located, and verified against `DIGESTS.json`."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import consisid_nano
from consisid_nano import digests


@pytest.fixture
def filled(installed: Path) -> Path:
    for name in ("checkpoint/vae/config.json", "checkpoint/example.png", "judges/arcface.onnx"):
        (installed / name).parent.mkdir(parents=True, exist_ok=True)
        (installed / name).write_text(name)
    digests.write()
    return installed


def test_importing_it_loads_nothing_but_the_standard_library() -> None:
    probe = "import sys; before = set(sys.modules); import consisid_nano; print(*(set(sys.modules) - before))"
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert "consisid_nano" in loaded
    assert {name.split(".")[0] for name in loaded} <= {"consisid_nano", *sys.stdlib_module_names}


@pytest.mark.parametrize("folder", [consisid_nano.checkpoint, consisid_nano.judges], ids=["checkpoint", "judges"])
def test_missing_data_names_what_to_install(installed: Path, folder: Callable[[], Path]) -> None:
    with pytest.raises(consisid_nano.DataMissing, match="pip install consisid-nano"):
        folder()


def test_the_folders_are_inside_the_package(filled: Path) -> None:
    assert consisid_nano.checkpoint() == filled / "checkpoint"
    assert consisid_nano.judges() == filled / "judges"


def test_every_file_is_listed_with_its_digest(filled: Path) -> None:
    assert digests.verified("checkpoint").keys() == {"vae/config.json", "example.png"}
    assert digests.verified("judges").keys() == {"arcface.onnx"}


def test_changed_added_and_deleted_files_are_named(filled: Path) -> None:
    (filled / "checkpoint" / "vae" / "config.json").write_text("changed")
    (filled / "checkpoint" / "example.png").unlink()
    (filled / "checkpoint" / "more").write_text("x")
    with pytest.raises(consisid_nano.DataDamaged, match=r"^example\.png, more, vae/config\.json in .*checkpoint"):
        digests.verified("checkpoint")
    assert digests.verified("judges")


def test_the_judges_digest_does_not_depend_on_the_checkpoint(filled: Path) -> None:
    before, whole = digests.recorded("judges")["digest"], json.loads((filled / digests.FILE).read_text())["digest"]
    (filled / "checkpoint" / "example.png").write_text("another")
    digests.write()
    assert digests.recorded("judges")["digest"] == before
    assert json.loads((filled / digests.FILE).read_text())["digest"] != whole


def test_judges_can_be_verified_without_a_checkpoint(filled: Path) -> None:
    for path in (filled / "checkpoint").rglob("*.*"):
        path.unlink()
    (filled / "checkpoint" / "vae").rmdir()
    (filled / "checkpoint").rmdir()
    digests.write()
    assert digests.verified("judges")
    with pytest.raises(consisid_nano.DataMissing):
        digests.verified("checkpoint")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"digest": "1", "checkpoint": {"digest": "2", "files": {}}}'])
def test_an_invalid_list_of_digests_is_damage(filled: Path, content: str) -> None:
    (filled / digests.FILE).write_text(content)
    with pytest.raises(consisid_nano.DataDamaged, match="install it again"):
        digests.verified("checkpoint")


def test_a_changed_list_of_digests_is_damage(filled: Path) -> None:
    path = filled / digests.FILE
    path.write_text(path.read_text().replace("example.png", "example.jpg"))
    with pytest.raises(consisid_nano.DataDamaged, match="was changed"):
        digests.recorded("checkpoint")


def test_a_missing_list_of_digests_is_missing_data(filled: Path) -> None:
    (filled / digests.FILE).unlink()
    with pytest.raises(consisid_nano.DataMissing, match=digests.FILE):
        digests.verified("checkpoint")
