"""Writes a module as a TensorRT engine, built from PyTorch by torch-tensorrt."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from consisid_export.bundle.engine_record import NOT_RUN, kept, timing_cache
from consisid_export.bundle.task import ModuleTask, Toolchain
from consisid_export.onnx.precision import exported_dtype, module_precision
from consisid_export.tensorrt import build
from consisid_export.tensorrt.with_torch import build_engine_with_torch, load_library
from consisid_runtime.models import networks


def toolchain() -> Toolchain:
    """torch-tensorrt, the libraries it was compiled for, and this machine's GPU."""
    load_library()
    library, found, architectures = build.target("tensorrt")
    versions = {name: version(name) for name in ("torch", "torch-tensorrt")}
    return Toolchain({**versions, library: found}, tuple(architectures))


def write(task: ModuleTask) -> dict[str, Any]:
    """Build the engine. Returns the module's record."""
    out = task.work.folder / task.options.builder.file_name(task.name)
    network = networks.load(task.name, task.checkpoint, exported_dtype(task.name, task.options.precision))
    options: dict[str, Any] = {"dynamic": task.options.dynamic, "timing_cache": timing_cache()}
    record = build_engine_with_torch(network, task.signature, task.geometry, out, **options)
    precision = module_precision(task.name, task.options.precision)
    return {"files": [out.name], "precision": precision, "check": NOT_RUN, "tensorrt": kept(record)}
