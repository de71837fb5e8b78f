"""A bundle is whole, or it is refused; an export leaves a whole one, or none."""

import errno
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from consisid_export import bundle as exporter
from consisid_export.bundle import export_bundle
from consisid_export.checkpoint import Checkpoint
from consisid_runtime.bundle import MANIFEST, Bundle, manifest_digest
from consisid_runtime.errors import BundleCorrupt, BundleMissing, BundleVersion, InvalidOption, OutputUnwritable


@pytest.fixture
def copy(nano_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(nano_bundle, tmp_path / "bundle"))


def flip(path: Path, offset: int) -> None:
    content = bytearray(path.read_bytes())
    content[offset % len(content)] ^= 1
    path.write_bytes(content)


def rewrite(folder: Path, **changes: Any) -> None:
    """Change the manifest and give it a digest that fits."""
    manifest = json.loads((folder / MANIFEST).read_text()) | changes
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest))


def test_one_flipped_byte_anywhere_is_found(copy: Path) -> None:
    for number, name in enumerate(sorted(Bundle.open(copy).manifest["files"])):
        original = (copy / name).read_bytes()
        flip(copy / name, 7919 * (number + 1))
        with pytest.raises(BundleCorrupt, match=name):
            Bundle.open(copy).verify()
        with pytest.raises(BundleCorrupt, match="changed after the export"):
            Bundle.open(copy).file(name)
        (copy / name).write_bytes(original)
    Bundle.open(copy).verify()


def test_a_flipped_byte_is_found_before_the_module_runs(copy: Path) -> None:
    flip(copy / "dit_step.onnx", 1000)
    with pytest.raises(BundleCorrupt, match=r"dit_step\.onnx"):
        Bundle.open(copy).module("dit_step")


def test_a_changed_manifest_is_found(copy: Path) -> None:
    text = (copy / MANIFEST).read_text()
    assert '"scaling_factor": 0.7' in text
    (copy / MANIFEST).write_text(text.replace('"scaling_factor": 0.7', '"scaling_factor": 0.6'))
    with pytest.raises(BundleCorrupt, match="changed after the export"):
        Bundle.open(copy)


def test_a_missing_or_shorter_file_is_found_when_opening(copy: Path) -> None:
    content = (copy / "clip.onnx").read_bytes()
    (copy / "clip.onnx").write_bytes(content[:-1])
    with pytest.raises(BundleCorrupt, match=rf"has {len(content) - 1} bytes, its manifest says {len(content)}"):
        Bundle.open(copy)
    (copy / "clip.onnx").unlink()
    with pytest.raises(BundleCorrupt, match=r"clip\.onnx is missing"):
        Bundle.open(copy)


def test_another_versions_manifest_is_refused(copy: Path) -> None:
    rewrite(copy, format=99)
    with pytest.raises(BundleVersion, match="has format 99, this version reads 1; export the checkpoint again"):
        Bundle.open(copy)


@pytest.mark.parametrize("content", ["", "[]", "{", '{"format": 1}'])
def test_a_manifest_that_is_none_is_refused(copy: Path, content: str) -> None:
    (copy / MANIFEST).write_text(content)
    with pytest.raises(BundleCorrupt):
        Bundle.open(copy)


@pytest.mark.parametrize("name", ["../outside", "/etc/hostname"])
def test_a_manifest_cannot_name_files_outside_its_folder(copy: Path, name: str) -> None:
    manifest = json.loads((copy / MANIFEST).read_text())
    (copy.parent / "outside").write_text("x")
    rewrite(copy, files=manifest["files"] | {name: {"bytes": 1, "sha256": ""}})
    with pytest.raises(BundleCorrupt, match="outside"):
        Bundle.open(copy)


def test_no_bundle_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing, match="consisid export"):
        Bundle.open(tmp_path)


def test_a_valid_bundle_is_kept_and_a_damaged_one_replaced(nano: Path, tmp_path: Path) -> None:
    out = tmp_path / "bundle"
    assert export_bundle(Checkpoint.open(nano), out, engine="torch")
    before = (out / MANIFEST).stat().st_mtime_ns
    assert not export_bundle(Checkpoint.open(nano), out, engine="torch")
    assert (out / MANIFEST).stat().st_mtime_ns == before
    flip(out / "vae.safetensors", 5000)
    assert export_bundle(Checkpoint.open(nano), out, engine="torch")
    Bundle.open(out).verify()
    assert [path.name for path in tmp_path.iterdir()] == ["bundle"]


def test_a_folder_that_is_no_bundle_is_left_alone(nano: Path, tmp_path: Path) -> None:
    (tmp_path / "letters.txt").write_text("dear")
    with pytest.raises(OutputUnwritable, match=r"has no manifest\.json; choose another folder"):
        export_bundle(Checkpoint.open(nano), tmp_path, engine="torch")
    assert (tmp_path / "letters.txt").read_text() == "dear"


@pytest.mark.parametrize("there_before", [False, True], ids=["nothing there", "a bundle there"])
def test_a_full_disk_leaves_what_was_there(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, there_before: bool
) -> None:
    out = tmp_path / "bundle"
    if there_before:
        export_bundle(Checkpoint.open(nano), out, engine="torch")
        flip(out / "vae.safetensors", 5000)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(exporter.shutil, "copyfile", full)
    with pytest.raises(OutputUnwritable, match="No space left on device; nothing was left behind"):
        export_bundle(Checkpoint.open(nano), out, engine="torch")
    assert [path.name for path in tmp_path.iterdir()] == (["bundle"] if there_before else [])


def test_an_unknown_engine_names_the_choices(nano: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="one of onnx, torch, got 'trt'"):
        export_bundle(Checkpoint.open(nano), tmp_path / "bundle", engine="trt")
