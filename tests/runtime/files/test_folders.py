"""A folder is replaced only where it is one of ours, whole."""

import json
from pathlib import Path

import pytest

from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.files.folders import replacing

MARKER = "manifest.json"


def ours(folder: Path, **files: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    (folder / MARKER).write_text(json.dumps({"files": list(files)}))


def rewrite(out: Path) -> None:
    with replacing(out, MARKER) as fresh:
        ours(fresh, new="2")


def test_ours_is_replaced_and_nothing_is_left_beside(tmp_path: Path) -> None:
    ours(tmp_path / "out", old="1")
    rewrite(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MARKER, "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    "files",
    [{MARKER: '{"name": "my extension"}', "main.js": "x"}, {MARKER: '{"files": ["a"]}', "a": "1", "diary": "mine"}],
    ids=["another program's manifest", "a file of the user's"],
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(OutputUnwritable, match="content that is not ours"):
        rewrite(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == files


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    rewrite(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "new").read_text() == "2"


def test_the_current_folder_can_be_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    rewrite(Path())
    assert (tmp_path / "new").read_text() == "2"
