"""Checkpoint → bundle: exports every module, compares it with its original, writes the manifest; can be interrupted."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import torch

from consisid_export.bundle.calibration import calibrated
from consisid_export.bundle.modules import Calibration
from consisid_export.bundle.sources import source_digest
from consisid_export.bundle.work_folder import Partial, file_record, resuming, sweep
from consisid_export.bundle.writers import Choices, Writer
from consisid_export.checkpoint.checkpoint import DETECTOR, RECOGNISER, TOKENIZER, Checkpoint
from consisid_export.checkpoint.licences import licences
from consisid_export.checkpoint.skeleton import stored
from consisid_export.checkpoint.tensor_files import write_converted
from consisid_export.verify.checkpoint_runs import Rehearsal
from consisid_export.verify.denoising_run import check_trajectory
from consisid_runtime.bundle import FORMAT, MANIFEST, Bundle, manifest_digest, sha256
from consisid_runtime.errors import BundleError
from consisid_runtime.events import Progress
from consisid_runtime.models import networks
from consisid_runtime.models.config import COMPONENTS

POSITIONS = "positions.safetensors"
TAKEN_AS_THEY_ARE = {
    "tokenizer/spiece.model": TOKENIZER,
    "face/detector.onnx": DETECTOR,
    "face/recogniser.onnx": RECOGNISER,
}


def export_bundle(
    checkpoint: Checkpoint,
    out: str | Path,
    *,
    engine: str = "onnx",
    precision: str = "fp32",
    calibration: str | Path | None = None,
    copy: bool = False,
    dynamic: bool = False,
    plugins: bool = False,
    progress: Progress | None = None,
) -> bool:
    """Write the bundle of `checkpoint` to `out`, unless one made from the same files by the same tools is there.

    An export that was interrupted goes on where it ended; the bundle appears when it is complete.

    Args:
        engine: "onnx" for ONNX graphs, "torch" for the weights alone, run by PyTorch, "tensorrt" or "torch-tensorrt"
            for TensorRT engines.
        precision: "fp32", "fp16", "bf16" or "fp8": of the weights, and of what matrices and convolutions compute.
        calibration: for fp8, `calibration.json` of another bundle of the same transformer; otherwise the checkpoint is
            run here, for which one of ConsisID's size needs a CUDA GPU.
        copy: copy the checkpoint's weights. Otherwise those that are stored as they are needed are hard-linked: the
            bundle then costs no disk, and whoever changes the checkpoint's files in place damages it.
        dynamic: let TensorRT engines take videos of other sizes than the checkpoint's own.
        plugins: let TensorRT's step compute attention by this project's kernels, built into the engine.
        progress: called with (module, done, total).

    Returns whether anything was written. Raises `ExportRefused` when a graph differs from its original,
    `OutputUnwritable` when `out` cannot be written, `OutputBusy` while another process exports to it,
    `ExportCancelled` on Ctrl-C, `MissingExtra` and `InvalidOption`; none leaves a half-written bundle.
    """
    choices = Choices(engine, precision, Path(calibration) if calibration else None, copy, dynamic, plugins)
    report = progress or (lambda module, done, total: None)
    out = Path(out).resolve()
    origin = choices.origin() | {"exporter": source_digest()}
    digest = _Digests(checkpoint, report)
    origin["checkpoint"] = digest.checkpoint
    if _still_valid(out, origin):
        sweep(out)
        return False
    with resuming(out, MANIFEST, manifest_digest({"format": FORMAT, **origin}), digest) as work:
        _write(checkpoint, work, choices, origin, digest, report)
    return True


class _Digests:
    """SHA-256 of files; a checkpoint's file is read once, also where a bundle links it.

    Attributes:
        checkpoint: path inside the checkpoint → digest.
    """

    def __init__(self, checkpoint: Checkpoint, progress: Progress) -> None:
        self.checkpoint: dict[str, str] = {}
        self._known: dict[tuple[int, int], str] = {}
        files = checkpoint.files()
        for done, path in enumerate(files):
            name = str(path.relative_to(checkpoint.path))
            progress(f"digest of {name}", done, len(files))
            self.checkpoint[name] = self._known[_inode(path)] = sha256(path)

    def __call__(self, path: Path) -> str:
        return self._known.get(_inode(path)) or sha256(path)


def _inode(path: Path) -> tuple[int, int]:
    found = path.stat()
    return found.st_dev, found.st_ino


def _write(
    checkpoint: Checkpoint,
    work: Partial,
    choices: Choices,
    origin: dict[str, Any],
    digest: _Digests,
    progress: Progress,
) -> None:
    signatures = networks.signatures(checkpoint)
    _take_files(checkpoint, work.folder)
    rehearsal = Rehearsal(checkpoint, work.folder, signatures)
    calibration = None
    if choices.fp8:

        def running(phase: str, step: int, steps: int) -> None:
            progress(f"{phase}, step {step}/{steps}", 0, len(signatures))

        ranges = calibrated(work, checkpoint, rehearsal, origin["checkpoint"], choices.calibration, running)
        calibration = Calibration(ranges, rehearsal.step_samples)
    writer = Writer(checkpoint, work, choices, calibration)
    for done, (name, signature) in enumerate(signatures.items()):
        progress(name, done, len(signatures))
        if name not in work.finished:

            def building(phase: str, step: int, steps: int, name: str = name, done: int = done) -> None:
                progress(f"{name}, {phase} {step}/{steps}", done, len(signatures))

            entry = writer.write(name, signature, building)
            work.finish(name, {"signature": signature.to_json(), **entry})
    progress("trajectory", len(signatures), len(signatures))
    trajectory = check_trajectory(
        checkpoint,
        work.folder,
        signatures,
        {name: work.finished[name]["entry"]["check"] for name in signatures},
        rehearsal,
        precision=choices.precision,
        ranges=calibration.ranges if calibration else None,
    )
    progress(MANIFEST, len(signatures), len(signatures))
    _write_manifest(checkpoint, work, origin | {"trajectory": trajectory}, digest, list(signatures))


def _take_files(checkpoint: Checkpoint, folder: Path) -> None:
    for target, source in TAKEN_AS_THEY_ARE.items():
        (folder / target).parent.mkdir(exist_ok=True)
        shutil.copyfile(checkpoint.path / source, folder / target)
    if checkpoint.config.transformer.use_learned_positional_embeddings:
        positions = stored(checkpoint, "transformer")[networks.LEARNED_POSITIONS]
        write_converted(folder / POSITIONS, {"pos_embedding": positions}, torch.float32)


def _write_manifest(
    checkpoint: Checkpoint, work: Partial, origin: dict[str, Any], digest: _Digests, modules: list[str]
) -> None:
    folder = work.folder
    files = {name: record for module in modules for name, record in work.finished[module]["files"].items()}
    names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
    example = checkpoint.example()
    manifest: dict[str, Any] = {
        "format": FORMAT,
        **origin,
        "config": {component: checkpoint.config.file(component) for component in COMPONENTS},
        "licences": licences(origin["checkpoint"], example.licence),
        "modules": {name: work.finished[name]["entry"] for name in modules},
        "files": {name: files.get(name) or file_record(folder / name, digest) for name in names},
    }
    if example.world is not None:
        manifest["world"] = example.world
    manifest["digest"] = manifest_digest(manifest)
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False))


def _still_valid(out: Path, origin: dict[str, Any]) -> bool:
    try:
        bundle = Bundle.open(out)
        bundle.verify()
    except BundleError:
        return False
    return all(bundle.manifest.get(key) == value for key, value in origin.items())
