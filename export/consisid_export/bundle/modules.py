"""One module of a checkpoint → its `.onnx` file in a bundle; the weights stay where they are.

The graph is traced without values and refers to every tensor by file, offset and length: to the checkpoint's shards
where the stored dtype is the exported one, else to a file of converted tensors. One way for every size of checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consisid_export.bundle.task import ModuleTask, Toolchain
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import Skeleton
from consisid_export.onnx.fp8 import Ranges, simulate
from consisid_export.onnx.precision import exported_dtype, module_precision
from consisid_export.onnx.structure import check_structure
from consisid_export.onnx.trace import OPSET, export_onnx
from consisid_export.onnx.weights import provide_weights, stored_weights
from consisid_export.verify.module import check
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.errors import InvalidRequest, MissingExtra
from consisid_runtime.models import networks
from consisid_runtime.signatures import Signature

_LARGEST_RUN = 3 << 29
"""Bytes of float32 weights up to which a module is run and compared: at full size all but T5 and the DiT."""

_LARGEST_NARROW_RUN = 1 << 26
"""The same in float16, in which PyTorch convolves on a CPU a hundred times more slowly."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How a checkpoint's own denoising looks to the layers that are quantised.

    Attributes:
        ranges: the layers, and the largest value that entered each.
        samples: makes inputs as they occur in a run, to compare on: random ones lie in other ranges. Raises
            `InvalidRequest` where the checkpoint cannot be run.
    """

    ranges: Ranges
    samples: Callable[[], Iterable[Mapping[str, Tensor]]]


def toolchain() -> Toolchain:
    """The libraries that trace and check a graph."""
    versions = {package: version(package) for package in ("torch", "onnx", "onnxscript")}
    return Toolchain(versions | {"onnxruntime": onnxruntime_version()})


def onnxruntime_version() -> str:
    """Of the installed distribution: the one for CPUs or the one for GPUs."""
    import onnxruntime

    return str(onnxruntime.__version__)


def write(task: ModuleTask) -> dict[str, Any]:
    """Export the graph into the bundle and compare it. Returns the module's record."""
    return write_graph(task, task.work.folder, copy=task.options.copy)


def write_graph(task: ModuleTask, folder: Path, *, copy: bool) -> dict[str, Any]:
    """The same into any folder."""
    precision = module_precision(task.name, task.options.precision)
    calibration = task.calibration if precision == "fp8" else None
    options: dict[str, Any] = {"precision": precision, "copy": copy, "calibration": calibration}
    return write_module(task.name, task.checkpoint, folder, task.signature, **options) | {"precision": precision}


def write_module(
    name: str,
    checkpoint: Checkpoint,
    folder: Path,
    signature: Signature,
    *,
    precision: str = "fp32",
    copy: bool = False,
    calibration: Calibration | None = None,
) -> dict[str, Any]:
    """Export one module into `folder` and check what was written.

    Args:
        signature: bound to the checkpoint's sizes.
        precision: one of `precision.PRECISIONS`.
        copy: copy the checkpoint's files instead of hard-linking them.
        calibration: what a module in fp8 needs to know of its inputs.

    Returns the manifest's record: "files" (the graph first), "opset" and "check", whose "kind" is "numeric" with
    "error", "limit" and the limit's "reason", or "structural" with the "reason" that nothing was run. Raises
    `InvalidOption` for an unknown precision, `ExportRefused` when the graph is not the network or too far from it.
    """
    dtype = exported_dtype(name, precision)
    if (module_precision(name, precision) == "fp8") != (calibration is not None):
        raise ValueError(f"{name} in {precision}: a calibration is for modules in fp8, and they need one")
    ranges = calibration.ranges if calibration else {}
    weights = provide_weights(name, checkpoint, folder, dtype, copy=copy, ranges=ranges)
    path = folder / f"{name}.onnx"
    export_onnx(networks.load(name, Skeleton(checkpoint), dtype), signature, path, weights, quantised=ranges)
    check_structure(path, signature)
    return {
        "files": [path.name, *sorted({weight.file.name for weight in weights.values()})],
        "opset": OPSET,
        "check": _check(name, checkpoint, path, signature, dtype, calibration),
    }


def too_large_to_run(name: str, checkpoint: Checkpoint, dtype: torch.dtype = torch.float32) -> str:
    """Why a module of this size is not run on a CPU to compare it with its original; "" when it is."""
    size = sum(4 * torch.Size(stored.shape).numel() for stored in stored_weights(name, checkpoint).values())
    if size <= (_LARGEST_RUN if dtype == torch.float32 else _LARGEST_NARROW_RUN):
        return ""
    return f"{size >> 20} MiB of float32 weights: too much to run for a check"


def _check(
    name: str,
    checkpoint: Checkpoint,
    path: Path,
    signature: Signature,
    dtype: torch.dtype,
    calibration: Calibration | None,
) -> dict[str, Any]:
    if reason := too_large_to_run(name, checkpoint, dtype):
        return {"kind": "structural", "reason": reason}
    engine = _engine(path, signature)
    if engine is None:
        return {"kind": "structural", "reason": f"ONNX Runtime's CPU provider does not implement {dtype}"}
    network = networks.load(name, checkpoint)
    rounded = None if dtype == torch.float32 else networks.load(name, checkpoint, dtype)
    samples = None
    if calibration:
        try:
            rounded, samples = simulate(network, calibration.ranges), calibration.samples()
        except InvalidRequest as problem:
            return {"kind": "structural", "reason": f"the checkpoint cannot be run: {problem.wire()}"}
    exact = lambda: networks.load(name, checkpoint, torch.float64)  # noqa: E731
    result = check(network, engine, signature, rounded, samples, exact)
    return {"kind": "numeric", "error": result.error, "limit": result.limit, "reason": result.reason}


def _engine(path: Path, signature: Signature) -> OnnxEngine | None:
    """None where ONNX Runtime lacks a kernel."""
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    try:
        return OnnxEngine(path, signature, device="cpu")
    except MissingExtra as error:
        if isinstance(error.__cause__, NoKernel):
            return None
        raise
