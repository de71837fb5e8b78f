"""A bundle is whole, or it is refused."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import torch

import consisid_nano
import consisid_runtime
from consisid_export.bundle.modules import OPSET
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.samples import TRACE_SIZES, sample_inputs
from consisid_runtime.bundle import FORMAT, MANIFEST, Bundle
from consisid_runtime.errors import BundleCorrupt, BundleMissing, BundleVersion
from consisid_runtime.files.ownership import manifest_digest, sha256
from consisid_runtime.models import networks


@pytest.fixture
def copy(untrained_bundle: Path, tmp_path: Path) -> Path:
    """A copy to damage."""
    return Path(shutil.copytree(untrained_bundle, tmp_path / "bundle"))


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


def test_a_longer_file_is_found_when_opening(copy: Path) -> None:
    with (copy / "parser.onnx").open("ab") as file:
        file.write(b"more")
    with pytest.raises(BundleCorrupt, match=r"parser.onnx has \d+ bytes, its manifest says"):
        Bundle.open(copy)


def test_another_versions_manifest_is_refused(copy: Path) -> None:
    rewrite(copy, format=99)
    with pytest.raises(BundleVersion, match="has format 99, this version reads 5; export the checkpoint again"):
        Bundle.open(copy)


@pytest.mark.parametrize("content", ["", "[]", "{", f'{{"format": {FORMAT}}}', "[" * 100_000, '{"format": ' * 100_000])
def test_a_manifest_that_is_none_is_refused(copy: Path, content: str) -> None:
    (copy / MANIFEST).write_text(content)
    with pytest.raises(BundleCorrupt):
        Bundle.open(copy)


@pytest.mark.parametrize("entry", ["files", "modules", "config"])
def test_a_manifest_without_its_parts_is_refused(copy: Path, entry: str) -> None:
    rewrite(copy, **{entry: [1]})
    with pytest.raises(BundleCorrupt, match="files, modules or config is missing"):
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


@pytest.mark.parametrize("engine", ["onnx", "torch"])
def test_the_manifest_is_what_its_schema_says(
    untrained_bundle: Path, torch_bundle_of: Callable[..., Path], engine: str
) -> None:
    schema = json.loads((Path(consisid_runtime.__file__).parent / "manifest.schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    manifest = Bundle.open(untrained_bundle if engine == "onnx" else torch_bundle_of()).manifest
    validator.validate(manifest)
    assert schema["properties"]["format"]["const"] == FORMAT
    for path in ("files", "modules", "checkpoint", "licences"):
        for broken in ({}, {"x": "y"}):
            if broken or "minProperties" in schema["properties"][path]:
                assert not validator.is_valid({**manifest, path: broken})
    assert not validator.is_valid({**manifest, "more": 1})


def test_the_manifest_names_every_file_and_measures_every_module(untrained: Path, untrained_bundle: Path) -> None:
    manifest = Bundle.open(untrained_bundle).manifest
    files = {str(p.relative_to(untrained_bundle)) for p in untrained_bundle.rglob("*") if p.is_file()} - {MANIFEST}
    assert set(manifest["files"]) == files
    assert manifest["checkpoint"] == {
        str(path.relative_to(untrained)): sha256(path) for path in Checkpoint.open(untrained).files()
    }
    assert set(manifest["modules"]) == set(networks.COMPONENTS)
    for module in manifest["modules"].values():
        assert module["opset"] == OPSET and module["precision"] == "fp32"
        assert 0 <= module["check"]["error"] <= module["check"]["limit"] == 1e-5


def test_the_licence_of_every_weight_file_is_told(untrained_bundle: Path) -> None:
    licences = Bundle.open(untrained_bundle).manifest["licences"]
    weights = [name for name in Bundle.open(untrained_bundle).manifest["checkpoint"] if not name.endswith(".json")]
    assert sorted(licences) == sorted(weights)
    for name, licence in licences.items():
        assert ("non-commercial" in licence["licence"]) == ("antelopev2" in name)
    assert licences["vae/diffusion_pytorch_model.safetensors"] == {"licence": "unknown"}


def test_stored_weights_cost_no_disk(untrained: Path, untrained_bundle: Path) -> None:
    name = "diffusion_pytorch_model.safetensors"
    assert (untrained_bundle / f"transformer.{name}").samefile(untrained / "transformer" / name)


def hub_cache(folder: Path, root: Path) -> Path:
    """The files of a folder as the cache of the Hugging Face hub holds them: links to files named by their digests."""
    snapshot, blobs = root / "snapshots" / "0123abcd", root / "blobs"
    blobs.mkdir(parents=True)
    for path in folder.rglob("*"):
        if path.is_file():
            blob, link = blobs / sha256(path), snapshot / path.relative_to(folder)
            blob.write_bytes(path.read_bytes())
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(os.path.relpath(blob, link.parent))
    return snapshot


def test_a_bundle_in_a_hub_cache_is_opened_and_run(untrained_bundle: Path, tmp_path: Path) -> None:
    snapshot = hub_cache(untrained_bundle, tmp_path)
    bundle, wanted = Bundle.open(snapshot, device="cpu"), Bundle.open(untrained_bundle, device="cpu")
    bundle.verify()
    inputs = sample_inputs(bundle.signature("clip"), TRACE_SIZES)
    found, expected = bundle.module("clip")(inputs), wanted.module("clip")(inputs)
    assert found.keys() == expected.keys() and all(torch.equal(found[name], expected[name]) for name in found)
    blob = (snapshot / "clip.onnx").resolve()
    flip(blob, 1000)
    with pytest.raises(BundleCorrupt, match=r"clip\.onnx"):
        Bundle.open(snapshot).verify()
    blob.unlink()
    with pytest.raises(BundleCorrupt, match=r"clip\.onnx is missing"):
        Bundle.open(snapshot)


def test_weights_may_be_links_to_anywhere(copy: Path, tmp_path: Path) -> None:
    """ONNX Runtime refuses these itself."""
    weights = copy / "clip.clip.safetensors"
    weights.rename(tmp_path / "elsewhere")
    weights.symlink_to("../elsewhere")
    bundle = Bundle.open(copy, device="cpu")
    found = bundle.module("clip")(sample_inputs(bundle.signature("clip"), TRACE_SIZES))
    assert all(torch.isfinite(output).all() for output in found.values())


def test_a_checkpoint_in_a_hub_cache_is_read(tmp_path: Path) -> None:
    snapshot = hub_cache(consisid_nano.checkpoint(), tmp_path)
    checkpoint = Checkpoint.open(snapshot)
    assert checkpoint.example() == Checkpoint.open(consisid_nano.checkpoint()).example()
    assert all(path.is_relative_to(snapshot) for path in checkpoint.files())


def test_a_bundle_that_this_user_cannot_read_is_typed(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(copy)

    def closed(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "open", closed)  # root may read everything
    for attempt in (bundle.verify, lambda: bundle.file("clip.onnx")):
        with pytest.raises(BundleCorrupt, match="cannot be read: Permission denied"):
            attempt()
