"""ConsisID-preview's networks on the torch engine, in its size, with weights that another function makes.

The weights come from a function of shape and dtype, so that a bundle of 23 GB is neither written nor read.
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from consisid_benchmarks.suites import full_faces
from consisid_benchmarks.suites.full_checkpoint import TEXT_ENCODER, TRANSFORMER, VAE
from consisid_nano.untrained import configs as untrained
from consisid_runtime.engines import Engine
from consisid_runtime.engines.torch import make_engine
from consisid_runtime.models import networks
from consisid_runtime.models.configs.checkpoint import CheckpointConfig
from consisid_runtime.signatures import Signature

MakeWeight = Callable[[str, tuple[int, ...], torch.dtype], Tensor]
"""Name, shape and dtype → a weight."""

CONFIGS: dict[str, Mapping[str, Any]] = {
    "transformer": TRANSFORMER | {"is_kps": False},
    "vae": VAE,
    "text_encoder": TEXT_ENCODER,
    "scheduler": untrained.SCHEDULER,
}
FLOAT32 = ("aligner", "parser")
"""Networks that are never rounded: a score of theirs decides whether there is a face, and where."""
_FACES = {"aligner": full_faces.aligner, "parser": full_faces.parser, "clip": full_faces.clip}


class FullSize:
    """Stands in for an opened bundle: a `consisid_runtime.bundle.Modules`.

    Args:
        weight: makes each weight of a network that is loaded.
        configs: component → its configuration, instead of ConsisID-preview's.
        device: where its modules run.
        float8: the denoiser's step has linear layers of E4M3 numbers.
    """

    world: str | None = None
    fingerprint = ""

    def __init__(
        self,
        weight: MakeWeight,
        *,
        configs: Mapping[str, Mapping[str, Any]] = CONFIGS,
        device: str = "cuda",
        float8: bool = False,
    ) -> None:
        self.config, self.device, self._float8 = CheckpointConfig(configs.__getitem__), device, float8
        self._weight = weight
        self.loaded: dict[str, Engine] = {}
        self._skeletons = networks.skeletons(self.config)
        self._signatures = networks.signatures(_Meta(self))

    def file(self, name: str) -> Path:
        return Path(name)

    def signature(self, module: str) -> Signature:
        return self._signatures[module]

    def module(self, name: str) -> Engine:
        if name not in self.loaded:
            dtype = torch.float32 if name in FLOAT32 else torch.bfloat16
            float8 = self._float8 and name == "dit_step"
            signature = self.signature(name)
            self.loaded[name] = make_engine(name, self, signature, dtype, self.device, self.loaded, float8=float8)
            gc.collect()
        return self.loaded[name]

    def shapes(self, component: str) -> dict[str, tuple[int, ...]]:
        """Names and shapes of a component's weights."""
        if component in _FACES:
            return _FACES[component]()
        return {
            name: tuple(tensor.shape)
            for part in self._skeletons[component]
            for name, tensor in part.state_dict().items()
        }

    def tensors(self, component: str) -> dict[str, Tensor]:
        """A component's weights, in the dtype that they are stored in."""
        dtype = torch.float32 if component in FLOAT32 else torch.bfloat16
        return {
            name: self._weight(name, shape, torch.int64 if name.endswith("num_batches_tracked") else dtype)
            for name, shape in self.shapes(component).items()
        }


class _Meta:
    """The same without weights: signatures need their shapes only."""

    def __init__(self, bundle: FullSize) -> None:
        self.config, self._shapes = bundle.config, bundle.shapes

    def tensors(self, component: str) -> dict[str, Tensor]:
        return {name: torch.empty(shape, device="meta") for name, shape in self._shapes(component).items()}
