"""`transformer/config.json`, parsed and checked: the transformer's part and the local facial extractor's."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consisid_runtime.models.configs.entries import LARGEST, Entries

FILE = "transformer/config.json"

_LAYERS = 1024


@dataclass(frozen=True, slots=True)
class DiTConfig:
    """`transformer/config.json` under its own names.

    Sizes called `sample_*` are those of training: latents for height and width, pixel frames for frames.
    """

    num_attention_heads: int
    attention_head_dim: int
    in_channels: int
    out_channels: int
    flip_sin_to_cos: bool
    freq_shift: int
    time_embed_dim: int
    text_embed_dim: int
    num_layers: int
    attention_bias: bool
    sample_width: int
    sample_height: int
    sample_frames: int
    patch_size: int
    temporal_compression_ratio: int
    max_text_seq_length: int
    norm_elementwise_affine: bool
    norm_eps: float
    spatial_interpolation_scale: float
    temporal_interpolation_scale: float
    use_rotary_positional_embeddings: bool
    use_learned_positional_embeddings: bool
    is_kps: bool
    cross_attn_interval: int
    cross_attn_dim_head: int
    cross_attn_num_heads: int
    LFE_num_querie: int
    LFE_output_dim: int
    local_face_scale: float

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> DiTConfig:
        """An entry that is not there has diffusers' default.

        Raises `CheckpointInvalid`, naming every entry, for a configuration that is not a ConsisID, or that this
        implementation cannot run.
        """
        at = Entries(FILE, config)
        _other_entries(at)
        found = cls(
            num_attention_heads=at.whole("num_attention_heads", 30),
            attention_head_dim=at.whole("attention_head_dim", 64),
            in_channels=at.whole("in_channels", 16),
            out_channels=at.whole("out_channels", 16),
            flip_sin_to_cos=at.flag("flip_sin_to_cos", True),
            freq_shift=at.whole("freq_shift", 0, low=0),
            time_embed_dim=at.whole("time_embed_dim", 512),
            text_embed_dim=at.whole("text_embed_dim", 4096),
            num_layers=at.whole("num_layers", 30, high=_LAYERS),
            attention_bias=at.flag("attention_bias", True),
            sample_width=at.whole("sample_width", 90, high=4096),
            sample_height=at.whole("sample_height", 60, high=4096),
            sample_frames=at.whole("sample_frames", 49),
            patch_size=at.whole("patch_size", 2, high=256),
            temporal_compression_ratio=at.whole("temporal_compression_ratio", 4, high=256),
            max_text_seq_length=at.whole("max_text_seq_length", 226, low=2),
            norm_elementwise_affine=at.flag("norm_elementwise_affine", True),
            norm_eps=at.number("norm_eps", 1e-5, 0, 1),
            spatial_interpolation_scale=at.positive("spatial_interpolation_scale", 1.875),
            temporal_interpolation_scale=at.positive("temporal_interpolation_scale", 1.0),
            use_rotary_positional_embeddings=at.flag("use_rotary_positional_embeddings", False),
            use_learned_positional_embeddings=at.flag("use_learned_positional_embeddings", False),
            is_kps=at.flag("is_kps", False),
            cross_attn_interval=at.whole("cross_attn_interval", 2, high=_LAYERS),
            cross_attn_dim_head=at.whole("cross_attn_dim_head", 128),
            cross_attn_num_heads=at.whole("cross_attn_num_heads", 16),
            LFE_num_querie=at.whole("LFE_num_querie", 32),
            LFE_output_dim=at.whole("LFE_output_dim", 2048),
            local_face_scale=at.number("local_face_scale", 1.0),
        )
        found._require_fit(at)
        at.unread(*(f"LFE_{name}" for name in LocalExtractorConfig.__dataclass_fields__))
        at.done()
        return found

    def _require_fit(self, at: Entries) -> None:
        face_dim = int(self.dim / 3 * 2)
        rotary, learned = self.use_rotary_positional_embeddings, self.use_learned_positional_embeddings
        faces = self.cross_attn_num_heads * self.cross_attn_dim_head
        for name, fits, wanted in (
            ("num_attention_heads", self.dim <= LARGEST, f"× attention_head_dim at most {LARGEST}"),
            ("num_attention_heads", self.dim % 16 == 0, "× attention_head_dim a multiple of 16"),
            ("cross_attn_num_heads", faces <= LARGEST, f"× cross_attn_dim_head at most {LARGEST}"),
            ("freq_shift", self.freq_shift < self.dim // 2, f"below half of the width ({self.dim // 2})"),
            ("use_rotary_positional_embeddings", rotary or not learned, "true beside learned positions"),
            ("attention_head_dim", self.attention_head_dim % 16 == 0 or not rotary, "a multiple of 16"),
            ("num_layers", self.num_layers % self.cross_attn_interval == 0, f"k × {self.cross_attn_interval}"),
            ("in_channels", self.in_channels == 2 * self.out_channels, f"2 × out_channels ({2 * self.out_channels})"),
            ("LFE_output_dim", self.LFE_output_dim == face_dim, f"{face_dim}, two thirds of the width"),
            ("sample_height", self.sample_height % self.patch_size == 0, f"k × patch_size ({self.patch_size})"),
            ("sample_width", self.sample_width % self.patch_size == 0, f"k × patch_size ({self.patch_size})"),
        ):
            at.require(name, getattr(self, name), fits, wanted)

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


def _other_entries(at: Entries) -> None:
    """The entries with one supported value, and those that change nothing."""
    at.choice("_class_name", None, (None, "ConsisIDTransformer3DModel"))
    is_train_face = at.flag("is_train_face", False)
    at.require("is_train_face", is_train_face, is_train_face, "true: without a face path this is not a ConsisID")
    at.choice("activation_fn", "gelu-approximate", ("gelu-approximate",))
    at.choice("timestep_activation_fn", "silu", ("silu",))
    at.number("dropout", 0.0, 0, 1)  # of training
    # ConsisID's own repository writes these of CogVideoX 1.5 too; diffusers' class does not take them.
    at.choice("patch_size_t", None, (None,))
    at.choice("ofs_embed_dim", None, (None,))
    at.choice("patch_bias", True, (True,))


@dataclass(frozen=True, slots=True)
class LocalExtractorConfig:
    """The keys `LFE_*` of `transformer/config.json` without their prefix."""

    id_dim: int
    vit_dim: int
    depth: int
    dim_head: int
    num_heads: int
    num_id_token: int
    num_querie: int
    output_dim: int
    ff_mult: int
    num_scale: int

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> LocalExtractorConfig:
        """From `transformer/config.json`; an entry that is not there has diffusers' default.

        Raises `CheckpointInvalid` naming every wrong entry, and when the layers do not divide among the scales.
        """
        # `DiTConfig` refuses what no part knows.
        own = {f"LFE_{name}" for name in cls.__dataclass_fields__} | {"_use_default_values"}
        at = Entries(FILE, {name: value for name, value in config.items() if name in own})
        found = cls(
            id_dim=at.whole("LFE_id_dim", 1280),
            vit_dim=at.whole("LFE_vit_dim", 1024),
            depth=at.whole("LFE_depth", 10, high=_LAYERS),
            dim_head=at.whole("LFE_dim_head", 64),
            num_heads=at.whole("LFE_num_heads", 16),
            num_id_token=at.whole("LFE_num_id_token", 5, high=_LAYERS),
            num_querie=at.whole("LFE_num_querie", 32),
            output_dim=at.whole("LFE_output_dim", 2048),
            ff_mult=at.whole("LFE_ff_mult", 4, high=256),
            num_scale=at.whole("LFE_num_scale", 5, high=_LAYERS),
        )
        inner = found.num_heads * found.dim_head
        at.require("LFE_num_heads", found.num_heads, inner <= LARGEST, f"× LFE_dim_head at most {LARGEST}")
        divides = found.depth % found.num_scale == 0
        at.require("LFE_depth", found.depth, divides, f"k × LFE_num_scale ({found.num_scale})")
        at.done()
        return found

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
