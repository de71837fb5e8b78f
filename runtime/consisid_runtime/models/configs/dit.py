"""`transformer/config.json`, parsed and checked: the transformer's part and the local facial extractor's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from consisid_runtime.errors import CheckpointInvalid


@dataclass(frozen=True, slots=True)
class DiTConfig:
    """`transformer/config.json` under its own names; a missing key has diffusers' default.

    Sizes called `sample_*` are those of training: latents for height and width, pixel frames for frames.
    Raises `CheckpointInvalid` for a configuration that is not a ConsisID or that this implementation cannot run.
    """

    num_attention_heads: int = 30
    attention_head_dim: int = 64
    in_channels: int = 16
    out_channels: int = 16
    flip_sin_to_cos: bool = True
    freq_shift: int = 0
    time_embed_dim: int = 512
    text_embed_dim: int = 4096
    num_layers: int = 30
    attention_bias: bool = True
    sample_width: int = 90
    sample_height: int = 60
    sample_frames: int = 49
    patch_size: int = 2
    temporal_compression_ratio: int = 4
    max_text_seq_length: int = 226
    activation_fn: str = "gelu-approximate"
    timestep_activation_fn: str = "silu"
    norm_elementwise_affine: bool = True
    norm_eps: float = 1e-5
    spatial_interpolation_scale: float = 1.875
    temporal_interpolation_scale: float = 1.0
    use_rotary_positional_embeddings: bool = False
    use_learned_positional_embeddings: bool = False
    is_train_face: bool = False
    is_kps: bool = False
    cross_attn_interval: int = 2
    cross_attn_dim_head: int = 128
    cross_attn_num_heads: int = 16
    LFE_num_querie: int = 32
    LFE_output_dim: int = 2048
    local_face_scale: float = 1.0

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DiTConfig:
        return cls(**{field.name: config[field.name] for field in fields(cls) if field.name in config})

    def __post_init__(self) -> None:
        face_dim = int(self.dim / 3 * 2)
        rotary, learned = self.use_rotary_positional_embeddings, self.use_learned_positional_embeddings
        for name, fits, wanted in (
            ("is_train_face", self.is_train_face, "true: without a face path this is not a ConsisID"),
            ("activation_fn", self.activation_fn == "gelu-approximate", "gelu-approximate"),
            ("timestep_activation_fn", self.timestep_activation_fn == "silu", "silu"),
            ("use_rotary_positional_embeddings", rotary or not learned, "true beside learned positions"),
            ("attention_head_dim", self.attention_head_dim % 16 == 0 or not rotary, "a multiple of 16"),
            ("num_layers", self.num_layers % self.cross_attn_interval == 0, f"k × {self.cross_attn_interval}"),
            ("in_channels", self.in_channels == 2 * self.out_channels, f"2 × out_channels ({2 * self.out_channels})"),
            ("LFE_output_dim", self.LFE_output_dim == face_dim, f"{face_dim}, two thirds of the width"),
        ):
            if not fits:
                raise CheckpointInvalid(f"transformer/config.json: {name} is {getattr(self, name)!r}, wanted {wanted}")

    @property
    def dim(self) -> int:
        return self.num_attention_heads * self.attention_head_dim

    @property
    def dims(self) -> dict[str, int]:
        """The checkpoint's numbers for the symbols in the signatures of prepare, modulate and step."""
        return {
            "blocks": self.num_layers,
            "channels": self.out_channels,
            "dim": self.dim,
            "face_dim": self.LFE_output_dim,
            "face_layers": self.num_layers // self.cross_attn_interval,
            "face_slots": self.cross_attn_num_heads * self.LFE_num_querie,
            "face_tokens": self.LFE_num_querie,
            "head_dim": self.attention_head_dim,
            "patch": self.patch_size,
            "text_dim": self.text_embed_dim,
            "text_length": self.max_text_seq_length,
        }


@dataclass(frozen=True, slots=True)
class LocalExtractorConfig:
    """The keys `LFE_*` of `transformer/config.json` without their prefix; a missing key has diffusers' default."""

    id_dim: int = 1280
    vit_dim: int = 1024
    depth: int = 10
    dim_head: int = 64
    num_heads: int = 16
    num_id_token: int = 5
    num_querie: int = 32
    output_dim: int = 2048
    ff_mult: int = 4
    num_scale: int = 5

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> LocalExtractorConfig:
        """From `transformer/config.json`. Raises `CheckpointInvalid` when the layers do not divide among the scales."""
        return cls(**{f.name: config[f"LFE_{f.name}"] for f in fields(cls) if f"LFE_{f.name}" in config})

    def __post_init__(self) -> None:
        if self.depth % self.num_scale:
            raise CheckpointInvalid(
                f"transformer/config.json: LFE_depth is {self.depth}, wanted k × LFE_num_scale ({self.num_scale})"
            )

    @property
    def dims(self) -> dict[str, int]:
        """The checkpoint's numbers for the symbols in `LOCAL_EXTRACTOR`, but for the vision tower's `clip_tokens`."""
        return {
            "identity_dim": self.id_dim,
            "scales": self.num_scale,
            "clip_dim": self.vit_dim,
            "face_tokens": self.num_querie,
            "face_dim": self.output_dim,
        }
