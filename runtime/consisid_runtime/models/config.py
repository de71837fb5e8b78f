"""A checkpoint's configuration files: each value is parsed and checked in one place. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.dit_config import DiTConfig, LocalExtractorConfig
from consisid_runtime.models.vae_config import VAEConfig
from consisid_runtime.options import Geometry

COMPONENTS = ("transformer", "vae", "text_encoder", "scheduler")
"""Components with a configuration file."""

_FEED_FORWARDS = ("gated-gelu", "relu")


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


@dataclass(frozen=True, slots=True)
class T5Config:
    """What the network needs of `text_encoder/config.json`.

    Attributes:
        vocabulary: rows of the embedding.
        width, heads, head_width, hidden, layers: sizes; heads·head_width need not be width.
        buckets, distance: of the relative position bias; distances beyond the last share its bucket.
        gated: feed-forward "gated-gelu" (T5 v1.1) or "relu" (T5).
    """

    vocabulary: int
    width: int
    heads: int
    head_width: int
    hidden: int
    layers: int
    buckets: int
    distance: int
    eps: float
    gated: bool

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> T5Config:
        """Raises `CheckpointInvalid` naming the entry that is missing or unknown to this runtime."""
        feed_forward = config.get("feed_forward_proj", "relu")
        if feed_forward not in _FEED_FORWARDS:
            raise CheckpointInvalid(
                f"text_encoder/config.json: feed_forward_proj must be one of {', '.join(_FEED_FORWARDS)}, "
                f"got {feed_forward!r}"
            )
        try:
            return cls(
                vocabulary=config["vocab_size"],
                width=config["d_model"],
                heads=config["num_heads"],
                head_width=config["d_kv"],
                hidden=config["d_ff"],
                layers=config["num_layers"],
                buckets=config.get("relative_attention_num_buckets", 32),
                distance=config.get("relative_attention_max_distance", 128),
                eps=config.get("layer_norm_epsilon", 1e-6),
                gated=feed_forward == "gated-gelu",
            )
        except KeyError as missing:
            raise CheckpointInvalid(f"text_encoder/config.json has no entry {missing}") from None
