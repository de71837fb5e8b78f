"""A folder is replaced only where it is one of ours, whole, and nothing but our files is ever removed from it."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.files import folders
from consisid_runtime.files.folders import exchange, replacing
from consisid_runtime.files.ownership import content_digests, is_inside, manifest_digest, write_marker

MARKER = "manifest.json"


def ours(folder: Path, **files: str) -> None:
    folder.mkdir(exist_ok=True)
    for name, content in files.items():
        (folder / name).write_text(content)
    write_marker(folder / MARKER, {"made": "here"})


def rewrite(out: Path, **files: str) -> None:
    with replacing(out, MARKER) as fresh:
        ours(fresh, **(files or {"new": "2"}))


def everything(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in folder.rglob("*") if path.is_file()}


def test_ours_is_replaced_and_nothing_is_left_beside(tmp_path: Path) -> None:
    ours(tmp_path / "out", old="1")
    rewrite(tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [MARKER, "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def sealed(**content: Any) -> str:
    return json.dumps({**content, "digest": manifest_digest(content)})


@pytest.mark.parametrize(
    "files",
    [
        {MARKER: '{"name": "my extension"}', "main.js": "x"},
        {MARKER: '{"name": "my dataset", "files": ["photo.jpg"]}', "photo.jpg": "x"},
        {MARKER: '{"format": 4, "files": {"photo.jpg": {"sha256": ""}}}', "photo.jpg": "x"},
        {MARKER: '{"format": 4, "digest": "", "files": {"photo.jpg": {"sha256": ""}}}', "photo.jpg": "x"},
        {MARKER: sealed(files={"photo.jpg": ""}), "photo.jpg": "x"},
        {MARKER: sealed(format=1, files=["photo.jpg"]), "photo.jpg": "x"},
        {MARKER: sealed(format=1, files={"photo.jpg": "0" * 64}), "photo.jpg": "x"},
        {MARKER: sealed(format=1, files={"../photo.jpg": "0" * 64})},
        {MARKER: "[" * 100_000},
        {MARKER: ""},
        {"diary": "mine"},
        {".hidden": "mine"},
        {"a/b/deep": "mine"},
    ],
    ids=range(13),
)
def test_what_is_not_ours_is_left_alone(tmp_path: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    with pytest.raises(OutputUnwritable, match="content that is not ours"):
        rewrite(tmp_path)
    assert everything(tmp_path) == files


@pytest.mark.parametrize("name", ["photo.jpg", ".hidden", "sub/photo.jpg"])
@pytest.mark.parametrize("kind", ["file", "link", "link to a folder", "pipe"])
def test_what_somebody_put_into_a_folder_of_ours_is_kept(tmp_path: Path, name: str, kind: str) -> None:
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    ours(out, old="1")
    elsewhere.mkdir()
    (elsewhere / "x").write_text("mine")
    (out / name).parent.mkdir(exist_ok=True)
    if kind == "pipe":
        os.mkfifo(out / name)
    elif kind == "file":
        (out / name).write_text("mine")
    else:
        (out / name).symlink_to(elsewhere / "x" if kind == "link" else elsewhere)
    before = content_digests(out, MARKER) if kind not in ("pipe", "link to a folder") else None
    with pytest.raises(OutputUnwritable, match=rf"not ours \({name}"):
        rewrite(out)
    assert (out / name).exists() and (elsewhere / "x").read_text() == "mine" and (out / "old").read_text() == "1"
    assert before is None or content_digests(out, MARKER) == before


def test_a_folder_that_is_a_link_gets_no_files(tmp_path: Path) -> None:
    """It has the name of one of ours, so that writing would go elsewhere."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "deep").write_text("1")
    with replacing(out, MARKER) as fresh:
        (fresh / "sub").mkdir()
        (fresh / "sub" / "deep").write_text("1")
        ours(fresh, top="1")
    shutil.rmtree(out / "sub")
    (out / "sub").symlink_to(elsewhere)
    with pytest.raises(OutputUnwritable, match=r"not ours \(sub\)"):
        rewrite(out)
    assert everything(elsewhere) == {"deep": "1"}


def test_a_damaged_one_and_one_with_an_empty_folder_is_replaced(tmp_path: Path) -> None:
    out = tmp_path / "out"
    ours(out, one="1", two="2", three="3")
    (out / "one").write_text("damaged")
    (out / "two").unlink()
    (out / "lost+found").mkdir()
    rewrite(out)
    assert everything(out).keys() == {MARKER, "new"} and (out / "lost+found").is_dir()


def test_a_link_is_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    rewrite(tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real" / "new").read_text() == "2"


def test_the_current_folder_can_be_the_target(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for content in "12":
        rewrite(Path(), new=content)
        assert Path("new").read_text() == content, "the process is still in that folder"


def test_a_folder_that_exists_is_never_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel refuses to rename a mount point, and from one file system to another."""
    out = tmp_path / "out"
    ours(out, old="1")
    before = out.stat()
    rename = os.rename

    def kernel(source: Any, target: Any, **_: Any) -> None:
        if Path(source) == out or Path(target) == out:
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY), str(source))
        if (out in Path(source).parents) != (out in Path(target).parents):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), str(source))
        rename(source, target)

    monkeypatch.setattr(os, "rename", kernel)
    monkeypatch.setattr(os, "replace", kernel)
    rewrite(out)
    assert everything(out).keys() == {MARKER, "new"} and out.stat().st_ino == before.st_ino


@pytest.mark.parametrize("step", range(1, 7))
def test_a_half_exchanged_folder_has_no_marker_and_is_finished_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    out = tmp_path / "out"
    ours(out, same="1", old="1", older="1")
    steps = iter(range(1, 100))

    def dying(call: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            if next(steps) == step:
                raise KeyboardInterrupt
            return call(*arguments, **named)

        return run

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(os, "replace", dying(os.replace))
        patch.setattr(Path, "unlink", dying(Path.unlink))
        rewrite(out, same="2", new="2", newer="2")
    assert (out / MARKER).exists() == (step <= 2)
    rewrite(out, same="3", new="3")
    assert everything(out).items() >= {"same": "3", "new": "3"}.items() and len(everything(out)) == 3
    assert os.listdir(tmp_path) == ["out"]


def test_between_file_systems_files_are_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replace = os.replace

    def other_device(source: Any, target: Any) -> None:
        if Path(source).parent != Path(target).parent:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        replace(source, target)

    monkeypatch.setattr(os, "replace", other_device)
    ours(tmp_path / "out", old="1")
    ours(tmp_path / "fresh", new="2")
    exchange(tmp_path / "fresh", tmp_path / "out", MARKER)
    assert everything(tmp_path).keys() == {f"out/{MARKER}", "out/new"}


@pytest.mark.parametrize("path", ["nul\0", "loop/out", "file/out", "x" * 300])
def test_what_is_no_path_is_typed(tmp_path: Path, path: str) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable):
        rewrite(tmp_path / path)
    with pytest.raises(OutputUnwritable):
        folders.require_place(folders.target_folder(tmp_path / path), MARKER)


@pytest.mark.parametrize("name", ["", "/etc/passwd", "..", "../x", "a/../../x", "a\0b", 3, None])
def test_names_that_lead_outside(name: object) -> None:
    assert not is_inside(name)
    assert is_inside("a/..b/c")
