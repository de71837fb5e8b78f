"""Provides a module's weights in a bundle: links to the checkpoint's own files, or files of converted tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import Skeleton, stored
from consisid_export.checkpoint.tensor_files import Stored, link, stored_tensors, write_converted
from consisid_export.onnx.fp8 import Ranges, write_quantised
from consisid_runtime.models import networks


def provide_weights(
    module: str,
    checkpoint: Checkpoint,
    folder: Path,
    dtype: torch.dtype,
    *,
    copy: bool = False,
    ranges: Ranges | None = None,
) -> dict[str, Stored]:
    """Make a module's weights available in `folder`, floats as `dtype`. Returns where each of its parameters lies.

    A shard with a tensor of that dtype is hard-linked (`tensor_files.link`). The other tensors are converted into one
    file. Modules of one component share both, so the folder must hold nothing of another checkpoint.

    Args:
        ranges: layers to quantise, with the ranges of their inputs; they go into a file of their own.
    """
    component, prefix = networks.COMPONENTS[module], networks.prefix(module)
    wanted = {prefix + parameter: weight for parameter, weight in stored_weights(module, checkpoint).items()}
    if ranges:
        weights = {layer: wanted.pop(f"{prefix}{layer}.weight") for layer in ranges}
        quantised = write_quantised(folder / f"{component}.{module}.fp8.safetensors", weights, ranges)
    else:
        quantised = {}
    for shard in sorted({s.file for s in wanted.values() if isinstance(s, Stored) and _fits(s, dtype)}):
        target = folder / f"{component}.{shard.name}"
        if not target.exists():
            link(shard, target, copy=copy)
    found = _provided(component, folder, dtype)
    missing = {name: weight for name, weight in wanted.items() if name not in found}
    if missing:
        write_converted(_free(folder, f"{component}.{module}"), missing, dtype)
        found = _provided(component, folder, dtype)
    return {name.removeprefix(prefix): found[name] for name in wanted} | quantised


def stored_weights(module: str, checkpoint: Checkpoint) -> Mapping[str, Stored | Tensor]:
    """The checkpoint's tensors for each of a module's parameters; nothing is read."""
    found = stored(checkpoint, networks.COMPONENTS[module])
    if not found:
        return networks.load(module, checkpoint, None).state_dict()
    names = networks.load(module, Skeleton(checkpoint), None).state_dict()
    return {name: found[networks.prefix(module) + name] for name in names}


def _provided(component: str, folder: Path, dtype: torch.dtype) -> dict[str, Stored]:
    files = sorted(folder.glob(f"{component}.*.safetensors"))
    found = {name: tensor for file in files for name, tensor in stored_tensors(file).items()}
    return {name: tensor for name, tensor in found.items() if _fits(tensor, dtype)}


def _free(folder: Path, stem: str) -> Path:
    """A file that is not there yet: one that is may hold weights of finished modules."""
    path, number = folder / f"{stem}.safetensors", 1
    while path.exists():
        number += 1
        path = folder / f"{stem}-{number}.safetensors"
    return path


def _fits(tensor: Stored, dtype: torch.dtype) -> bool:
    return tensor.dtype == dtype or not tensor.dtype.is_floating_point
