"""Writes one module of a checkpoint into a bundle, in the form that the bundle's engine takes."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import Tensor

from consisid_export.bundle.modules import Calibration, write_module
from consisid_export.bundle.work_folder import Partial
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import stored
from consisid_export.checkpoint.tensor_files import Stored, pieces, write_tensors
from consisid_export.onnx.precision import exported_dtype, module_precision
from consisid_runtime.bundle import sha256
from consisid_runtime.errors import InvalidOption
from consisid_runtime.events import Progress
from consisid_runtime.models import networks
from consisid_runtime.signatures import Signature

ENGINES = ("onnx", "torch", "tensorrt", "torch-tensorrt")
_VERSIONED = ("consisid-runtime", "torch", "onnx", "onnxscript", "onnxruntime")
_NOT_RUN = {"kind": "structural", "reason": "built, but not run: that needs a GPU"}


@dataclass(frozen=True, slots=True)
class Choices:
    """What an export was asked for. Raises `InvalidOption` for what does not exist or does not go together.

    Attributes:
        engine: one of `ENGINES`; torch-tensorrt is another way to build TensorRT engines.
        precision: one of `precision.PRECISIONS`.
        calibration: for fp8, the ranges of an earlier export instead of runs of the checkpoint.
        copy: copy the checkpoint's weights instead of linking them.
        dynamic: TensorRT engines for videos of other sizes than the checkpoint's.
        plugins: TensorRT engines whose step computes attention by this project's kernels.
    """

    engine: str = "onnx"
    precision: str = "fp32"
    calibration: Path | None = None
    copy: bool = False
    dynamic: bool = False
    plugins: bool = False

    def __post_init__(self) -> None:
        if self.engine not in ENGINES:
            raise InvalidOption(f"engine must be one of {', '.join(ENGINES)}, got {self.engine!r}")
        module_precision("dit_step", self.precision)
        if self.engine in ("torch", "torch-tensorrt") and self.fp8:
            raise InvalidOption(f"engine {self.engine!r} has no fp8; engines 'tensorrt' and 'onnx' have")
        if self.calibration and not self.fp8:
            raise InvalidOption(f"calibration is for precision 'fp8', got precision {self.precision!r}")
        if self.dynamic and not self.tensorrt:
            raise InvalidOption(f"dynamic is for TensorRT engines; engine {self.engine!r} takes every size as it is")

        if self.plugins and (self.engine != "tensorrt" or self.precision not in ("fp16", "bf16")):
            raise InvalidOption(
                f"plugins are for engine 'tensorrt' in fp16 or bf16, got engine {self.engine!r} in {self.precision}"
            )

    @property
    def fp8(self) -> bool:
        return self.precision == "fp8"

    @property
    def tensorrt(self) -> bool:
        return self.engine in ("tensorrt", "torch-tensorrt")

    def origin(self) -> dict[str, Any]:
        """The manifest's entries that say what an engine is, and with which tools and for which GPUs it is made.

        Raises `MissingExtra` where they are not here.
        """
        versions = {package: version(package) for package in _VERSIONED}
        found: dict[str, Any] = {
            "engine": "tensorrt" if self.tensorrt else self.engine,
            "builder": self.engine,
            "precision": self.precision,
            "options": {
                "copy": self.copy,
                "dynamic": self.dynamic,
                "plugins": self.plugins,
                "calibration": self._calibration(),
            },
            "architectures": [],
            "versions": versions,
        }
        if self.tensorrt:
            from consisid_export.tensorrt import build

            if self.engine == "torch-tensorrt":
                from consisid_export.tensorrt.with_torch import load_library

                load_library()
                versions["torch-tensorrt"] = version("torch-tensorrt")
            name, found_version, architectures = build.target("tensorrt" if "torch-tensorrt" in versions else None)
            versions[name], found["architectures"] = found_version, architectures
        return found

    def _calibration(self) -> str | None:
        if self.calibration is None:
            return None
        if not self.calibration.is_file():
            raise InvalidOption(f"calibration {self.calibration} is not there; it is a file of an fp8 bundle")
        return sha256(self.calibration)


@dataclass(frozen=True, slots=True)
class Writer:
    """Writes modules of one checkpoint into one work folder. `calibration` is there where the precision is fp8."""

    checkpoint: Checkpoint
    work: Partial
    choices: Choices
    calibration: Calibration | None = None

    def write(self, name: str, signature: Signature, progress: Progress) -> dict[str, Any]:
        """Write one module. Returns the manifest's entry for it, its signature excepted.

        Args:
            progress: called with (phase, done, total) while TensorRT builds.
        """
        if self.choices.engine == "torch":
            return self._weights(name)
        if self.choices.engine == "onnx":
            return self._onnx(name, signature, self.work.folder, copy=self.choices.copy)
        return self._tensorrt(name, signature, progress)

    def _onnx(self, name: str, signature: Signature, folder: Path, *, copy: bool) -> dict[str, Any]:
        precision = module_precision(name, self.choices.precision)
        calibration = self.calibration if precision == "fp8" else None
        options: dict[str, Any] = {"precision": precision, "copy": copy, "calibration": calibration}
        return write_module(name, self.checkpoint, folder, signature, **options) | {"precision": precision}

    def _weights(self, name: str) -> dict[str, Any]:
        component = networks.COMPONENTS[name]
        path = self.work.folder / f"{component}.safetensors"
        if not path.exists():
            copy_weights(self.checkpoint, component, path)
        check = {"kind": "none", "reason": "runs the original network"}
        return {"files": [path.name], "precision": module_precision(name, self.choices.precision), "check": check}

    def _tensorrt(self, name: str, signature: Signature, progress: Progress) -> dict[str, Any]:
        sizes = self.checkpoint.config.geometry
        out = self.work.folder / f"{name}.engine"
        entry: dict[str, Any] = {
            "files": [out.name],
            "precision": module_precision(name, self.choices.precision),
            "check": _NOT_RUN,
        }
        shared: dict[str, Any] = {"dynamic": self.choices.dynamic, "timing_cache": _timing_cache()}
        if self.choices.engine == "torch-tensorrt":
            from consisid_export.tensorrt.with_torch import build_engine_with_torch

            network = networks.load(name, self.checkpoint, exported_dtype(name, self.choices.precision))
            record = build_engine_with_torch(network, signature, sizes, out, **shared)
        else:
            from consisid_export.tensorrt.build import build_engine

            with self.work.scratch() as folder:
                graph = self._onnx(name, signature, folder, copy=False)
                entry["graph"] = {key: graph[key] for key in ("opset", "check")}
                shared |= {"plugins": self.choices.plugins and name == "dit_step", "progress": progress}
                record = build_engine(folder / f"{name}.onnx", signature, sizes, out, **shared)
        return entry | {"tensorrt": {key: value for key, value in record.items() if key != "seconds"}}


def copy_weights(checkpoint: Checkpoint, component: str, path: Path) -> None:
    """Write all tensors of a component into one safetensors file, as they are stored, piece by piece."""
    tensors: Mapping[str, Stored | Tensor] = stored(checkpoint, component) or checkpoint.tensors(component)
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_tensors(path, layout, lambda name: pieces(tensors[name]))


def _timing_cache() -> Path:
    """Where TensorRT keeps its timings of kernels: one file for all exports of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consisid" / "tensorrt.timing"
