"""Checkpoint → bundle: exports every module, compares it with its original, writes the manifest; resumable."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from consisid_export.bundle.calibration import calibrated
from consisid_export.bundle.copied_files import copy_files
from consisid_export.bundle.export_options import ExportOptions
from consisid_export.bundle.modules import Calibration, onnxruntime_version
from consisid_export.bundle.sources import CALIBRATION, DENOISING_RUN, Parts
from consisid_export.bundle.task import ModuleTask
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.licences import licences
from consisid_export.onnx.precision import exported_dtype
from consisid_export.resuming.folder import WorkFolder, file_record, resuming
from consisid_export.resuming.place import finish, sweep
from consisid_export.verify.checkpoint_runs import CheckpointRuns
from consisid_export.verify.denoising_run import check_denoising_run
from consisid_runtime.bundle import FORMAT, MANIFEST, Bundle
from consisid_runtime.errors import BundleError
from consisid_runtime.events import Progress, silent
from consisid_runtime.files.atomic import write_file
from consisid_runtime.files.folders import require_place, target_folder
from consisid_runtime.files.ownership import manifest_digest, sha256
from consisid_runtime.models import networks
from consisid_runtime.models.configs.checkpoint import COMPONENTS
from consisid_runtime.tiers import available

_VERSIONED = ("consisid-runtime", "torch", "onnx", "onnxscript")


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
    progress: Progress = silent,
) -> bool:
    """Write the bundle of `checkpoint` to `out`, unless one made from the same files by the same tools is there.

    Modules that were finished before, in a bundle at `out` or by an interrupted export to it, are kept where whatever
    shapes them is unchanged. The bundle appears when it is complete; a folder that exists, such as a mount point or the
    current one, stays and gets its files.

    Args:
        engine: one of `builders.BUILDERS`: "onnx" for ONNX graphs, "torch" for the weights alone, run by PyTorch,
            "mixed" for graphs, and PyTorch's form of the decoder for CPUs, "tensorrt" or "torch-tensorrt" for TensorRT
            engines.
        precision: "fp32", "fp16", "bf16" or "fp8": of the weights, and of what matrices and convolutions compute.
        calibration: for fp8, `calibration.json` of another bundle of the same transformer; otherwise the checkpoint is
            run here, for which one of ConsisID's size needs a CUDA GPU.
        copy: copy the checkpoint's weights. Otherwise those that are stored as they are needed are hard-linked: the
            bundle then costs no disk, and whoever changes the checkpoint's files in place damages it.
        dynamic: let TensorRT engines take videos of other sizes than the checkpoint's own.
        plugins: let TensorRT's step compute attention by this project's kernels, built into the engine.
        progress: called with (module, done, total).

    Returns whether anything was written. Raises `ExportRefused` when a graph differs from its original,
    `OutputUnwritable` when `out` cannot be written or is not ours, `OutputBusy` while another process exports to it,
    `ExportCancelled` on Ctrl-C, `MissingExtra` and `InvalidOption`; none leaves a half-written bundle.
    """
    options = ExportOptions(engine, precision, Path(calibration) if calibration else None, copy, dynamic, plugins)
    out = target_folder(out)
    finished = finish(out, MANIFEST)
    if _opened(out) is None:
        require_place(out, MANIFEST)
    export = _Export(checkpoint, options, progress)
    before = export.made_before(out)
    if before is not None and export.is_current(before):
        sweep(out)
        return finished
    identity = manifest_digest({"format": FORMAT, **export.identity})
    with resuming(out, MANIFEST, identity, export.digest, export.sources) as work:
        if before is not None:
            work.take_over(before.path, _parts(before), before.manifest["files"])
        export.write(work)
    return True


class _Export:
    """One export.

    Attributes:
        identity: the manifest's entries that every part of the bundle is made from.
        sources: part → digest of what else shapes it.
        digest: SHA-256 of a file.
    """

    def __init__(self, checkpoint: Checkpoint, options: ExportOptions, progress: Progress) -> None:
        self._checkpoint, self._options, self._progress = checkpoint, options, progress
        self._toolchain = options.builder.toolchain()
        asked = options.record()
        caches = exported_dtype("vae_decoder_next", options.precision)
        self._signatures = networks.signatures(checkpoint, caches)
        self._geometry = checkpoint.config.geometry
        self.sources = Parts(options, self._toolchain, self._signatures, self._geometry).digests()
        self.digest = _Digests(checkpoint, progress)
        self.identity = {"options": asked, "checkpoint": self.digest.checkpoint}

    def made_before(self, out: Path) -> Bundle | None:
        """The bundle at `out`, where it is undamaged and was made from the same checkpoint with the same options."""
        bundle = _opened(out)
        try:
            if bundle is None:
                return None
            bundle.verify()
        except BundleError:
            return None
        same = all(bundle.manifest[key] == value for key, value in self.identity.items())
        return bundle if same else None

    def is_current(self, bundle: Bundle) -> bool:
        """Whether no part of a bundle, and nothing that its manifest says of the checkpoint, would differ now."""
        manifest, example = bundle.manifest, self._checkpoint.example()
        stated = licences(self.digest.checkpoint, example.licence), example.world, self._tiers()
        parts = {part: entry["sources"] for part, entry in _parts(bundle).items()}
        return parts == self.sources and stated == (manifest["licences"], manifest.get("world"), manifest["tiers"])

    def write(self, work: WorkFolder) -> None:
        """Write what is not finished, and the manifest."""
        copy_files(self._checkpoint, work.folder)
        runs = CheckpointRuns(self._checkpoint, work.folder, self._signatures)
        calibration = self._calibration(work, runs) if self._options.calibrates else None
        for done, name in enumerate(self._signatures):
            self._progress(name, done, len(self._signatures))
            if name not in work.finished:
                self._write_module(work, name, calibration, done)
        total = len(self._signatures)
        self._progress("denoising run", total, total)
        if DENOISING_RUN not in work.finished:
            work.finish(DENOISING_RUN, {"files": [], **self._check_run(work, runs, calibration)})
        self._progress(MANIFEST, total, total)
        self._write_manifest(work)

    def _calibration(self, work: WorkFolder, runs: CheckpointRuns) -> Calibration:
        def running(phase: str, step: int, steps: int) -> None:
            self._progress(f"{phase}, step {step}/{steps}", 0, len(self._signatures))

        digests, given = self.digest.checkpoint, self._options.calibration
        ranges = calibrated(work, self._checkpoint, runs, digests, given, running)
        return Calibration(ranges, runs.step_samples)

    def _write_module(self, work: WorkFolder, name: str, calibration: Calibration | None, done: int) -> None:
        def building(phase: str, step: int, steps: int) -> None:
            self._progress(f"{name}, {phase} {step}/{steps}", done, len(self._signatures))

        builder, signature = self._options.builder_of(name), self._signatures[name]
        options = self._options
        task = ModuleTask(name, signature, self._checkpoint, self._geometry, work, options, calibration, building)
        work.finish(name, {"engine": builder.engine, "signature": signature.to_json(), **builder.write(task)})

    def _check_run(self, work: WorkFolder, runs: CheckpointRuns, calibration: Calibration | None) -> dict[str, Any]:
        checks = {name: work.finished[name]["entry"]["check"] for name in self._signatures}
        ranges = calibration.ranges if calibration else None
        arguments = self._checkpoint, work.folder, self._signatures, checks, runs
        return check_denoising_run(*arguments, precision=self._options.precision, ranges=ranges)

    def _tiers(self) -> list[str]:
        return [*available(self._options.precision, self._checkpoint.curve())]

    def _write_manifest(self, work: WorkFolder) -> None:
        folder = work.folder
        known = {name: found for record in work.finished.values() for name, found in record["files"].items()}
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        example, config = self._checkpoint.example(), self._checkpoint.config
        versions = {package: version(package) for package in _VERSIONED} | {"onnxruntime": onnxruntime_version()}
        versions |= self._toolchain.versions
        if self._options.plugins:
            versions["triton"] = version("triton")
        manifest: dict[str, Any] = {
            "format": FORMAT,
            **self.identity,
            "versions": versions,
            "architectures": list(self._toolchain.architectures),
            "tiers": self._tiers(),
            "config": {component: config.file(component) for component in COMPONENTS},
            "licences": licences(self.digest.checkpoint, example.licence),
            "modules": {name: work.finished[name]["entry"] for name in self._signatures},
            **{part: work.finished[part]["entry"] for part in self.sources if part not in self._signatures},
            "files": {name: known.get(name) or file_record(folder / name, self.digest) for name in names},
        }
        if example.world is not None:
            manifest["world"] = example.world
        if (curve := self._checkpoint.curve()) is not None:
            manifest["curve"] = curve.to_json()
        manifest["digest"] = manifest_digest(manifest)
        text = json.dumps(manifest, indent=1, sort_keys=True, allow_nan=False)
        write_file(folder / MANIFEST, text.encode())


def _opened(out: Path) -> Bundle | None:
    try:
        return Bundle.open(out)
    except BundleError:
        return None


def _parts(bundle: Bundle) -> dict[str, dict[str, Any]]:
    """Part of a bundle → its record."""
    others = {part: bundle.manifest[part] for part in (CALIBRATION, DENOISING_RUN) if part in bundle.manifest}
    return {**bundle.manifest["modules"], **others}


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
