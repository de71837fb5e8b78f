"""Checkpoint → bundle: exports every module, compares it with its original, writes the manifest, all or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file

from consisid_export.check import check
from consisid_export.checkpoint import DETECTOR, RECOGNISER, TOKENIZER, Checkpoint
from consisid_export.folders import replacing
from consisid_export.onnx import OPSET, export_onnx
from consisid_export.sources import source_digest
from consisid_runtime.bundle import FORMAT, MANIFEST, Bundle, manifest_digest, sha256
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.errors import BundleError, InvalidOption
from consisid_runtime.models import networks
from consisid_runtime.signatures import Signature

ENGINES = ("onnx", "torch")
VERSIONED = ("consisid-runtime", "torch", "onnx", "onnxscript", "onnxruntime")
POSITIONS = "positions.safetensors"
TAKEN_AS_THEY_ARE = {
    "tokenizer/spiece.model": TOKENIZER,
    "face/detector.onnx": DETECTOR,
    "face/recogniser.onnx": RECOGNISER,
}

Progress = Callable[[str, int, int], None]


def export_bundle(
    checkpoint: Checkpoint, out: str | Path, *, engine: str = "onnx", progress: Progress | None = None
) -> bool:
    """Write the bundle of `checkpoint` to `out`, unless one made from the same files by the same tools is there.

    Args:
        engine: "onnx" for ONNX graphs, "torch" for the weights alone, run by PyTorch.
        progress: called with (module, done, total).

    Returns whether anything was written. Raises `ExportRefused` when a graph differs from its original,
    `OutputUnwritable` when `out` cannot be written; neither leaves a half-written bundle.
    """
    if engine not in ENGINES:
        raise InvalidOption(f"engine must be one of {', '.join(ENGINES)}, got {engine!r}")
    out = Path(out)
    origin = {
        "engine": engine,
        "checkpoint": {str(file.relative_to(checkpoint.path)): sha256(file) for file in checkpoint.files()},
        "exporter": source_digest(),
        "versions": _versions(),
    }
    if _still_valid(out, origin):
        return False
    with replacing(out, MANIFEST) as folder:
        _write(checkpoint, folder, origin, progress or (lambda module, done, total: None))
    return True


def _write(checkpoint: Checkpoint, folder: Path, origin: dict[str, Any], progress: Progress) -> None:
    signatures = networks.signatures(checkpoint)
    modules = {}
    for done, (name, signature) in enumerate(signatures.items()):
        progress(name, done, len(signatures))
        write = _write_onnx if origin["engine"] == "onnx" else _write_weights
        modules[name] = {"signature": signature.to_json(), **write(checkpoint, folder, signature)}
    for name, source in TAKEN_AS_THEY_ARE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.path / source, folder / name)
    positions = networks.learned_positions(checkpoint)
    if positions is not None:
        save_file({"pos_embedding": positions}, folder / POSITIONS)
    progress(MANIFEST, len(signatures), len(signatures))
    _write_manifest(checkpoint, folder, origin, modules)


def _write_onnx(checkpoint: Checkpoint, folder: Path, signature: Signature) -> dict[str, Any]:
    path = folder / f"{signature.name}.onnx"
    network = networks.load(signature.name, checkpoint)
    export_onnx(network, signature, path)
    result = check(network, OnnxEngine(path, signature, device="cpu"), signature)
    return {
        "files": sorted(file.name for file in folder.glob(f"{path.name}*")),
        "opset": OPSET,
        "check": {"kind": "numeric", "error": result.error, "limit": result.limit},
    }


def _write_weights(checkpoint: Checkpoint, folder: Path, signature: Signature) -> dict[str, Any]:
    component = networks.COMPONENTS[signature.name]
    path = folder / f"{component}.safetensors"
    if not path.exists():
        # Copies, since safetensors refuses tensors that share memory, as EVA02-CLIP's rotations do.
        save_file({name: tensor.clone() for name, tensor in checkpoint.tensors(component).items()}, path)
    return {"files": [path.name], "check": {"kind": "none", "reason": "runs the original network"}}


def _write_manifest(checkpoint: Checkpoint, folder: Path, origin: dict[str, Any], modules: dict[str, Any]) -> None:
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    manifest: dict[str, Any] = {
        "format": FORMAT,
        "precision": "fp32",
        **origin,
        "config": {name: checkpoint.config(name) for name in ("transformer", "vae", "text_encoder", "scheduler")},
        "modules": modules,
        "files": {
            str(file.relative_to(folder)): {"bytes": file.stat().st_size, "sha256": sha256(file)} for file in files
        },
    }
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True))


def _still_valid(out: Path, origin: dict[str, Any]) -> bool:
    try:
        bundle = Bundle.open(out)
        bundle.verify()
    except BundleError:
        return False
    return all(bundle.manifest.get(key) == value for key, value in origin.items())


def _versions() -> dict[str, str]:
    return {package: version(package) for package in VERSIONED}
