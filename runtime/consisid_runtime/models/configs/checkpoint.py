"""A checkpoint's configuration files: each value is parsed and checked in one place. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cached_property
from typing import Any

from consisid_runtime.models.configs.dit import DiTConfig, LocalExtractorConfig
from consisid_runtime.models.configs.t5 import T5Config
from consisid_runtime.models.configs.vae import VAEConfig
from consisid_runtime.options import Geometry

COMPONENTS = ("transformer", "vae", "text_encoder", "scheduler")
"""Components with a configuration file."""


class CheckpointConfig:
    """The configuration of one checkpoint. Each file is read and parsed when it is first used.

    Args:
        read: component of `COMPONENTS` → its parsed JSON.

    Every attribute raises `CheckpointInvalid`, naming file and entry, for what this runtime cannot run.
    """

    def __init__(self, read: Callable[[str], Mapping[str, Any]]) -> None:
        self._read = read
        self._files: dict[str, Mapping[str, Any]] = {}

    def file(self, component: str) -> Mapping[str, Any]:
        """The parsed file of a component."""
        if component not in self._files:
            self._files[component] = self._read(component)
        return self._files[component]

    @cached_property
    def transformer(self) -> DiTConfig:
        return DiTConfig.from_dict(self.file("transformer"))

    @cached_property
    def local_extractor(self) -> LocalExtractorConfig:
        return LocalExtractorConfig.from_dict(self.file("transformer"))

    @cached_property
    def vae(self) -> VAEConfig:
        return VAEConfig.from_dict(self.file("vae"))

    @cached_property
    def text_encoder(self) -> T5Config:
        return T5Config.from_dict(self.file("text_encoder"))

    @property
    def scheduler(self) -> Mapping[str, Any]:
        """`scheduler/scheduler_config.json`; `stages.schedule` parses it together with a request's steps."""
        return self.file("scheduler")

    @cached_property
    def geometry(self) -> Geometry:
        """The sizes this checkpoint works in."""
        transformer, vae = self.transformer, self.vae
        return Geometry(
            frames=transformer.sample_frames,
            height=transformer.sample_height * vae.spatial,
            width=transformer.sample_width * vae.spatial,
            spatial=vae.spatial,
            temporal=vae.temporal,
            patch=transformer.patch_size,
            fixed_size=transformer.use_learned_positional_embeddings,
        )
