"""An export leaves a whole bundle, or none; interrupted, it goes on where it ended."""

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consisid_export.bundle.builders import Builder
from consisid_export.bundle.copied_files import POSITIONS
from consisid_export.bundle.export import export_bundle
from consisid_export.bundle.task import ModuleTask
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_runtime.bundle import MANIFEST, Bundle
from consisid_runtime.errors import (
    BundleMissing,
    ExportCancelled,
    ExportRefused,
    OutputBusy,
    OutputUnwritable,
)
from consisid_runtime.events import Progress
from consisid_runtime.models import networks

MODULES = list(networks.COMPONENTS)
FailingAt = Callable[[str, BaseException], Progress]


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Collects the modules that are written, not those taken over."""
    names: list[str] = []
    write = Builder.write

    def noting(self: Builder, task: ModuleTask) -> dict[str, Any]:
        names.append(task.name)
        return write(self, task)

    monkeypatch.setattr(Builder, "write", noting)
    return names


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset % len(content)] ^= 1
    path.write_bytes(content)


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_a_valid_bundle_is_kept_and_a_damaged_one_replaced(checkpoint: Checkpoint, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert export_bundle(checkpoint, out, engine="torch")
    before = (out / MANIFEST).stat().st_mtime_ns
    assert not export_bundle(checkpoint, out, engine="torch")
    assert (out / MANIFEST).stat().st_mtime_ns == before
    flip(out / "vae.safetensors", 5000)
    assert export_bundle(checkpoint, out, engine="torch")
    Bundle.open(out).verify()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_left_alone(checkpoint: Checkpoint, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(OutputUnwritable, match="content that is not ours"):
        export_bundle(checkpoint, tmp_path, engine="torch")
    assert (tmp_path / "letters.txt").read_text() == "dear"


def test_a_killed_export_goes_on_where_it_ended(
    checkpoint: Checkpoint, torch_bundle_of: Callable[..., Path], tmp_path: Path, written: list[str]
) -> None:
    out = tmp_path / "bundle"
    script = f"""
import os, signal
from consisid_export.bundle.export import export_bundle
from consisid_export.checkpoint.checkpoint import Checkpoint
def progress(module, done, total):
    if done == 6 and not module.startswith("digest"):
        os.kill(os.getpid(), signal.SIGKILL)
export_bundle(Checkpoint.open({str(checkpoint.path)!r}), {str(out)!r}, engine="torch", progress=progress)
"""
    done = subprocess.run([sys.executable, "-c", script], check=False)
    assert done.returncode == -signal.SIGKILL
    assert [path.name for path in tmp_path.iterdir()] == [".bundle.partial"]
    for folder in (out, tmp_path / ".bundle.partial" / "bundle"):
        with pytest.raises(BundleMissing):
            Bundle.open(folder)
    assert export_bundle(checkpoint, out, engine="torch")
    assert written == MODULES[6:]
    assert contents(out) == contents(torch_bundle_of())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_what_was_damaged_between_two_runs_is_redone(
    checkpoint: Checkpoint,
    torch_bundle_of: Callable[..., Path],
    tmp_path: Path,
    written: list[str],
    failing_at: FailingAt,
) -> None:
    out, partial = tmp_path / "bundle", tmp_path / ".bundle.partial"
    with pytest.raises(ExportCancelled, match=r"12 finished parts are kept in .*\.partial"):
        export_bundle(checkpoint, out, engine="torch", progress=failing_at(MANIFEST, KeyboardInterrupt()))
    flip(partial / "bundle" / "vae.safetensors", 7000)
    flip(partial / "records" / "parser.json", 30)
    (partial / "records" / "clip.json").unlink()
    (partial / "bundle" / "left over").write_text("x")
    written.clear()
    assert export_bundle(checkpoint, out, engine="torch")
    assert written == ["parser", "clip", "vae_encoder", "vae_decoder_first", "vae_decoder_next"]
    assert contents(out) == contents(torch_bundle_of())


def test_what_another_checkpoint_left_is_not_taken_over(
    checkpoint: Checkpoint,
    checkpoint_of: Callable[..., Path],
    tmp_path: Path,
    written: list[str],
    failing_at: FailingAt,
) -> None:
    other = Checkpoint.open(checkpoint_of(is_kps=True))
    with pytest.raises(ExportCancelled):
        export_bundle(other, tmp_path / "b", engine="torch", progress=failing_at(MANIFEST, KeyboardInterrupt()))
    written.clear()
    export_bundle(checkpoint, tmp_path / "b", engine="torch")
    assert written == MODULES


@pytest.mark.parametrize("there_before", [False, True], ids=["nothing there", "a bundle there"])
def test_a_full_disk_leaves_what_was_there_and_what_is_finished(
    checkpoint: Checkpoint, tmp_path: Path, written: list[str], there_before: bool, failing_at: FailingAt
) -> None:
    out = tmp_path / "bundle"
    if there_before:
        export_bundle(checkpoint, out, engine="torch")
        flip(out / "vae.safetensors", 5000)
        damaged = contents(out)
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputUnwritable, match=r"No space left on device; 10 finished parts are kept in .*\.partial"):
        export_bundle(checkpoint, out, engine="torch", progress=failing_at(MODULES[10], full))
    if there_before:
        assert contents(out) == damaged
    else:
        assert not out.exists()
    written.clear()
    export_bundle(checkpoint, out, engine="torch")
    assert written == MODULES[10:]
    Bundle.open(out).verify()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_disk_that_is_full_at_once_leaves_nothing(
    checkpoint: Checkpoint, tmp_path: Path, failing_at: FailingAt
) -> None:
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OutputUnwritable, match="No space left on device; nothing was left behind"):
        export_bundle(checkpoint, tmp_path / "b", engine="torch", progress=failing_at(MODULES[0], full))
    assert not list(tmp_path.iterdir())


def test_a_refused_module_leaves_no_bundle(checkpoint: Checkpoint, tmp_path: Path, failing_at: FailingAt) -> None:
    with pytest.raises(ExportRefused, match="too far"):
        export_bundle(
            checkpoint, tmp_path / "b", engine="torch", progress=failing_at(MODULES[3], ExportRefused("too far"))
        )
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("there_before", [False, True], ids=["nothing there", "a bundle there"])
@pytest.mark.parametrize("moved", [0, 9])
def test_death_while_the_bundle_is_put_into_its_place_loses_nothing(
    checkpoint: Checkpoint,
    torch_bundle_of: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    written: list[str],
    there_before: bool,
    moved: int,
) -> None:
    out = tmp_path / "bundle"
    if there_before:
        export_bundle(checkpoint, out, engine="torch")
        flip(out / "vae.safetensors", 5000)
        (out / "clip.safetensors").unlink()
    else:
        out.mkdir()
    replace, count = os.replace, iter(range(100))

    def dying(source: Any, target: Any) -> None:
        if out in Path(target).parents and next(count) >= moved:
            raise MemoryError
        replace(source, target)

    with monkeypatch.context() as patch, pytest.raises(MemoryError):
        patch.setattr(os, "replace", dying)
        export_bundle(checkpoint, out, engine="torch")
    with pytest.raises(BundleMissing):
        Bundle.open(out)
    written.clear()
    assert export_bundle(checkpoint, out, engine="torch")
    assert written == []
    assert contents(out) == contents(torch_bundle_of())
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]
    assert not export_bundle(checkpoint, out, engine="torch")


def test_an_export_into_the_current_folder(
    checkpoint: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert export_bundle(checkpoint, ".", engine="torch")
    flip(Path("vae.safetensors"), 5000)
    assert export_bundle(checkpoint, Path(), engine="torch")
    Bundle.open(".").verify()
    assert os.listdir(tmp_path) == ["here"]


@pytest.mark.parametrize("there_before", [False, True], ids=["an empty one", "a bundle there"])
@pytest.mark.parametrize("refused", ["mount point", "closed parent"])
def test_a_folder_that_cannot_be_reached_from_outside_is_written_inside(
    checkpoint: Checkpoint,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    refused: str,
    there_before: bool,
    failing_at: FailingAt,
) -> None:
    out = tmp_path / "out"
    if there_before:
        export_bundle(checkpoint, out, engine="torch")
        flip(out / "vae.safetensors", 5000)
    else:
        out.mkdir()
    rename, mkdir, seen = os.rename, Path.mkdir, list[bool]()

    def kernel(source: Any, target: Any, **_: Any) -> None:
        if (out in Path(source).parents) != (out in Path(target).parents):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        if out in (Path(source), Path(target)):
            raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))
        rename(source, target)

    def closed(self: Path, *arguments: Any, **named: Any) -> None:
        if self.parent == tmp_path and self != out:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
        mkdir(self, *arguments, **named)

    if refused == "mount point":
        monkeypatch.setattr(os, "rename", kernel)
        monkeypatch.setattr(os, "replace", kernel)
    else:
        monkeypatch.setattr(Path, "mkdir", closed)
    work = out / ".consisid-partial"

    def looking(*_: object) -> None:
        seen.append(work.is_dir())
        if there_before:
            Bundle.open(out)

    with pytest.raises(ExportCancelled, match=r"12 finished parts are kept in .*\.consisid-partial"):
        export_bundle(checkpoint, out, engine="torch", progress=failing_at(MANIFEST, KeyboardInterrupt()))
    assert export_bundle(checkpoint, out, engine="torch", progress=looking)
    assert seen[-1] and os.listdir(tmp_path) == ["out"] and not work.exists()
    Bundle.open(out).verify()


def test_an_export_onto_a_mounted_file_system(checkpoint: Checkpoint, tmp_path: Path, small_disk: Any) -> None:
    disk = small_disk(64 * 2**20)
    assert export_bundle(checkpoint, disk, engine="torch")
    flip(disk / "vae.safetensors", 5000)
    assert export_bundle(checkpoint, disk, engine="torch")
    Bundle.open(disk).verify()
    assert [path.name for path in tmp_path.iterdir()] == [disk.name] and disk.is_mount()
    assert export_bundle(checkpoint, disk / "below" / "it", engine="torch")


FOREIGN = {
    "a dataset": {"manifest.json": '{"name": "my dataset", "files": ["photo.jpg"]}', "photo.jpg": "mine"},
    "of our format": {"manifest.json": '{"format": 4, "files": {"photo.jpg": {"bytes": 4}}}', "photo.jpg": "mine"},
    "no marker": {"photo.jpg": "mine"},
    "hidden": {".photo.jpg": "mine"},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_another_folder_is_refused_before_any_work(checkpoint: Checkpoint, tmp_path: Path, files: Any) -> None:
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    with pytest.raises(OutputUnwritable, match="content that is not ours"):
        export_bundle(checkpoint, tmp_path, engine="torch", progress=lambda *_: pytest.fail("worked"))
    assert contents(tmp_path) == {name: content.encode() for name, content in files.items()}


def test_a_file_that_somebody_put_into_a_bundle_is_kept(checkpoint: Checkpoint, tmp_path: Path) -> None:
    export_bundle(checkpoint, tmp_path / "b", engine="torch")
    (tmp_path / "b" / "photo.jpg").write_text("mine")
    assert not export_bundle(checkpoint, tmp_path / "b", engine="torch"), "nothing to do"
    before = contents(tmp_path)
    with pytest.raises(OutputUnwritable, match=r"not ours \(photo\.jpg\)"):
        export_bundle(checkpoint, tmp_path / "b", engine="torch", copy=True)
    assert contents(tmp_path) == before
    shutil.copy(tmp_path / "b" / MANIFEST, tmp_path / MANIFEST)
    (tmp_path / "clip.safetensors").write_text("mine")
    with pytest.raises(OutputUnwritable, match="not ours"):
        export_bundle(checkpoint, tmp_path, engine="torch")


@pytest.mark.parametrize("name", [".b.partial", "b/.consisid-partial"])
@pytest.mark.parametrize("inside", ["bundle/photo.jpg", "photo.jpg", "lock", "identity", "placing/photo.jpg"])
def test_a_folder_named_like_a_work_folder_is_left_alone(
    checkpoint: Checkpoint, tmp_path: Path, name: str, inside: str
) -> None:
    photo = tmp_path / name / inside
    photo.parent.mkdir(parents=True)
    photo.write_text("mine")
    with pytest.raises(OutputUnwritable, match="not the work folder of an export"):
        export_bundle(checkpoint, tmp_path / "b", engine="torch")
    assert contents(tmp_path) == {str(photo.relative_to(tmp_path)): b"mine"}


def test_of_two_exports_to_one_folder_one_wins(checkpoint: Checkpoint, tmp_path: Path) -> None:
    refused: list[str] = []

    def second(module: str, done: int, total: int) -> None:
        if module == MODULES[4]:
            with pytest.raises(OutputBusy) as error:
                export_bundle(checkpoint, tmp_path / "b", engine="torch")
            refused.append(str(error.value))

    assert export_bundle(checkpoint, tmp_path / "b", engine="torch", progress=second)
    Bundle.open(tmp_path / "b").verify()
    assert len(refused) == 1
    assert refused[0].startswith(f"process {os.getpid()} on ") and "wait for it, or choose another folder" in refused[0]


def test_positions_are_readable_by_everyone(torch_bundle_of: Callable[..., Path]) -> None:
    assert POSITIONS in contents(torch_bundle_of())
    assert (torch_bundle_of() / POSITIONS).stat().st_mode & 0o044
