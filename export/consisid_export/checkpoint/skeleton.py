"""A checkpoint's tensors without their values: builds and traces every network in very little memory."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx.experimental.symbolic_shapes import ShapeEnv

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.layout import SAFETENSORS
from consisid_export.checkpoint.tensor_files import Stored, stored_tensors


class Skeleton:
    """A `networks.WeightReader` of fake tensors with a checkpoint's names, shapes and dtypes."""

    def __init__(self, checkpoint: Checkpoint) -> None:
        self._checkpoint, self.config = checkpoint, checkpoint.config
        self._mode = FakeTensorMode(allow_non_fake_inputs=True, shape_env=ShapeEnv())

    def tensors(self, component: str) -> dict[str, Tensor]:
        found: Mapping[str, Tensor | Stored]
        found = stored(self._checkpoint, component) or self._checkpoint.tensors(component)
        with self._mode:
            return {name: torch.empty(tensor.shape, dtype=tensor.dtype) for name, tensor in found.items()}


def stored(checkpoint: Checkpoint, component: str) -> dict[str, Stored]:
    """The location of each tensor of a component; empty for the face networks, which are not in safetensors files."""
    if component not in SAFETENSORS:
        return {}
    folder = (checkpoint.path / SAFETENSORS[component]).parent
    shards = [file for file in checkpoint.files() if file.parent == folder and file.suffix == ".safetensors"]
    return {name: tensor for shard in shards for name, tensor in stored_tensors(shard).items()}
