"""Writes a module for the torch engine: its component's weights in one file, as they are stored."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from consisid_export.bundle.task import ModuleTask, Toolchain
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import stored
from consisid_export.checkpoint.tensor_files import Stored, pieces, write_tensors
from consisid_export.onnx.precision import module_precision
from consisid_runtime.models import networks


def toolchain() -> Toolchain:
    """No library shapes the file."""
    return Toolchain()


def write(task: ModuleTask) -> dict[str, Any]:
    """Write the weights, unless another module of the component has. Returns the module's record."""
    component = networks.COMPONENTS[task.name]
    path = task.work.folder / f"{component}.safetensors"
    if not path.exists():
        copy_weights(task.checkpoint, component, path)
    precision = module_precision(task.name, task.options.precision, beside_fp8="bf16")
    quantised = ", its linear layers quantised when it is loaded" if precision == "fp8" else ""
    check = {"kind": "none", "reason": f"runs the original network{quantised}"}
    return {"files": [path.name], "precision": precision, "check": check}


def copy_weights(checkpoint: Checkpoint, component: str, path: Path) -> None:
    """Write all tensors of a component into one safetensors file, as they are stored, piece by piece."""
    tensors: Mapping[str, Stored | Tensor] = stored(checkpoint, component) or checkpoint.tensors(component)
    layout = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    write_tensors(path, layout, lambda name: pieces(tensors[name]))
