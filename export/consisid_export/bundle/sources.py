"""Digests of what shapes each part of a bundle beside the checkpoint: source files, versions of libraries, sizes.

A part is a module, fp8's calibration, or the denoising run. An export keeps a finished part while its digest is the
same. Which files shape a part follows from imports (`source_files`), beginning at the module that writes it; the tables
below name what is imported but shapes nothing, or only some parts.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch

from consisid_export.bundle.export_options import ExportOptions
from consisid_export.bundle.source_files import content, file_digests, file_of, imported_files, parse
from consisid_export.bundle.task import Toolchain
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.onnx.precision import module_precision
from consisid_runtime.models import networks
from consisid_runtime.models.blueprint import fill
from consisid_runtime.plan import Geometry
from consisid_runtime.signatures import Signature

CALIBRATION, DENOISING_RUN = "calibration", "denoising_run"

_SHAPES_NOTHING = (
    "consisid_runtime.errors",
    "consisid_runtime.files",
    "consisid_export.bundle.sources",
    "consisid_export.resuming",
    "consisid_export.checkpoint.change_curve",
    "consisid_export.checkpoint.contents",
    "consisid_export.checkpoint.problems",
    "consisid_export.tensorrt.progress",
    "consisid_runtime.events",
    "consisid_runtime.models.fused.decoder",
    "consisid_runtime.models.cpu_decoder",
    "consisid_runtime.models.in_place_decoder",
    "consisid_runtime.mp4",
    "consisid_runtime.stages.decode",
    "consisid_nano.marker",
)
"""Messages, atomic writing, this decision and what records it, the curve, which stands in the manifest alone, progress;
no run of the exporter decodes."""

_SHAPES_RUNS = (
    "consisid_runtime.options",
    "consisid_runtime.plan",
    "consisid_runtime.tiers",
    "consisid_runtime.models.configs.checkpoint",
    "consisid_export.checkpoint.example",
)
"""What a checkpoint is run on. A module takes only the geometry from it, whose numbers are in the module's digest, and
its own network's configuration, which the network's file imports."""

_ONLY_WITH = {
    "consisid_export.onnx.fp8": "fp8",
    "consisid_export.tensorrt.plugin_graph": "plugins",
    "consisid_export.tensorrt.plugins": "plugins",
    "consisid_kernels": "kernels",
    "consisid_runtime.models.fused.float8": "kernels",
    "consisid_runtime.models.fused.step": "kernels",
}
"""What takes effect only in parts with a feature."""

_CALIBRATE = "consisid_export.bundle.calibration"
_COPY_FILES = "consisid_export.bundle.copied_files"
_RUN = "consisid_export.verify.denoising_run"


@dataclass(frozen=True, slots=True)
class Parts:
    """The parts of one export, with what they are made from and for."""

    options: ExportOptions
    toolchain: Toolchain
    signatures: Mapping[str, Signature]
    geometry: Geometry

    def digests(self) -> dict[str, str]:
        """Part → hex SHA-256 of what shapes it."""
        found = {name: self._module(name) for name in self.signatures}
        if self.options.calibrates:
            found[CALIBRATION] = _digest(self._run(_CALIBRATE), versions=self._versions(torch.cuda.is_available()))
        run = {}
        if self.options.builder.runs:
            run = self._run(_RUN) | {name: found[name] for name in networks.COMPONENTS if name.startswith("dit_")}
        versions = self._versions(torch.cuda.is_available()) if run else {}
        found[DENOISING_RUN] = _digest(_files([_COPY_FILES], ()) | run, versions=versions)
        return found

    def _module(self, name: str) -> str:
        builder, plugins = self.options.builder_of(name), self.options.plugins_in(name)
        own = builder is self.options.builder
        fp8 = self.options.calibrates and module_precision(name, self.options.precision) == "fp8"
        entries = [builder.module, Checkpoint.__module__]
        if builder.traces:
            entries += [networks.NETWORKS[name].definition.__module__, fill.__module__]
        features = [*(["fp8"] if fp8 else []), *(["plugins", "kernels"] if plugins else [])]
        return _digest(
            _files(entries, features) | (self._run(_CALIBRATE) if fp8 else {}),
            versions=self._versions(plugins) if own else builder.toolchain().versions,
            architectures=self.toolchain.architectures if own else (),
            signature=self.signatures[name].to_json(),
            geometry=asdict(self.geometry),
        )

    def _versions(self, kernels: bool) -> dict[str, str]:
        return {**self.toolchain.versions, **({"triton": version("triton")} if kernels else {})}

    def _run(self, entry: str) -> dict[str, str]:
        """The files that shape runs of the checkpoint, in which a step computes by kernels where there is a GPU."""
        features = [*(["fp8"] if self.options.calibrates else []), *(["kernels"] if torch.cuda.is_available() else [])]
        return _files([entry], features, run=True)


def files_digest(entry: str) -> str:
    """Hex SHA-256 over a module and all that it imports, for what is no part of a bundle."""
    return _digest(_files([entry], (), run=True))


@functools.cache
def exporter_digest() -> str:
    """Hex SHA-256 over the whole exporter, and the networks and signatures it exports."""
    exporter, runtime = file_of("consisid_export").parent, file_of("consisid_runtime").parent
    files = [*exporter.rglob("*.py"), *(runtime / "models").rglob("*.py"), runtime / "signatures.py"]
    return _digest(file_digests({"/".join(file.parts[len(exporter.parts) - 1 :]): file for file in files}))


def _files(entries: Iterable[str], features: Collection[str], *, run: bool = False) -> dict[str, str]:
    """Name → digest, for the files that `entries` lead to.

    Args:
        features: of the part, values of `_ONLY_WITH`.
        run: whether the checkpoint is run, hence every network and all that a run depends on is needed.
    """
    files = imported_files(entries, _following(features, run=run))
    kernels = [path for name, path in files.items() if name.startswith("consisid_kernels.")]
    if kernels:
        names = {name for path in kernels for name in parse(content(path)).strings}
        tables = file_of("consisid_kernels.launch").parent.glob("tiles/*.json")
        files |= {f"tiles/{table.name}": table for table in tables if table.stem in names}
    return file_digests(files)


def _following(features: Collection[str], *, run: bool) -> Callable[[str, list[str]], Iterable[str]]:
    without = [*_SHAPES_NOTHING, *(() if run else _SHAPES_RUNS)]
    without += [module for module, feature in _ONLY_WITH.items() if feature not in features]

    def follow(module: str, names: list[str]) -> Iterable[str]:
        if module == networks.__name__ and not run:
            return ()  # it imports every network
        return [name for name in names if not any(f"{name}.".startswith(f"{cut}.") for cut in without)]

    return follow


def _digest(files: Mapping[str, str], **more: Any) -> str:
    text = json.dumps({"files": files, **more}, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()
