"""What each module of a ConsisID takes of a GPU's memory: weights, and what it works with.

The bytes are those that the fake GPU counts at ConsisID-preview's size in 16 bits, in `needs.json`, which
`python -m consisid_benchmarks.fake_gpu.budgets --write` writes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from consisid_runtime.models.configs.checkpoint import CheckpointConfig
    from consisid_runtime.plan import Plan

FILE = "needs.json"

ORDER = (
    "aligner",
    "parser",
    "clip",
    "local_extractor",
    "text_encoder",
    "vae_encoder",
    "dit_prepare",
    "dit_modulate",
    "dit_step",
    "vae_decoder_first",
    "vae_decoder_next",
)
"""Modules in the order in which a request calls them; `dit_modulate` again before every block of steps."""
SHARED = {"vae_decoder_next": "vae_decoder_first"}
"""Module → the one whose weights it has."""
_OF_TOKENS = ("dit_prepare", "dit_modulate", "dit_step")
"""Modules that work with every token, or that run while a request's tokens are kept."""
_OF_PIXELS = ("vae_encoder", "vae_decoder_first", "vae_decoder_next")
_FLOAT32 = 4
_LATENTS = 3 * 64 * _FLOAT32
"""Bytes of a token's latents, three times: the decoder keeps those of all frames, and works on some."""


@dataclass(frozen=True, slots=True)
class Size:
    """Of a video: tokens of a step, text included, and pixels of a frame."""

    tokens: int
    pixels: int


@dataclass(frozen=True, slots=True)
class Needs:
    """Bytes on the device.

    Attributes:
        weights: module → its weights, without those of `SHARED`.
        working: module → what is there at most from its call to the next module's, beside weights and `fixed`.
        fixed: there all the time: the learned positions.
        blocks: the step's transformer blocks.
        block: weights of one of them, part of the step's.
        size: of the video that `working` is for.
    """

    weights: Mapping[str, int]
    working: Mapping[str, int]
    fixed: int
    blocks: int
    block: int
    size: Size

    def at(self, size: Size) -> Needs:
        """The needs of another video.

        What grows with a video grows at most in proportion, and the decoder, which works on a few frames at a time, by
        the latents of more frames: so this is never too little for a larger one. A smaller one counts as much as
        `size`.
        """
        tokens, pixels = (
            max(a / b, 1.0) for a, b in ((size.tokens, self.size.tokens), (size.pixels, self.size.pixels))
        )
        factors = dict.fromkeys(_OF_TOKENS, tokens) | dict.fromkeys(_OF_PIXELS, pixels)
        latents = _LATENTS * max(size.tokens - self.size.tokens, 0)
        grown = {
            name: round(count * factors.get(name, 1.0)) + (latents if name in _OF_PIXELS else 0)
            for name, count in self.working.items()
        }
        return replace(self, working=grown, size=size)


def architecture(config: CheckpointConfig) -> dict[str, Any]:
    """What decides how much memory a checkpoint's modules take, beside the video's size."""
    transformer, vae, text = config.transformer, config.vae, config.text_encoder
    return {
        "layers": transformer.num_layers,
        "width": transformer.num_attention_heads * transformer.attention_head_dim,
        "heads": transformer.num_attention_heads,
        "text_tokens": transformer.max_text_seq_length,
        "time_width": transformer.time_embed_dim,
        "face_interval": transformer.cross_attn_interval,
        "vae_channels": list(vae.channels),
        "vae_layers": vae.layers,
        "text_layers": text.layers,
        "text_width": text.width,
        "text_hidden": text.hidden,
    }


def size_of(config: CheckpointConfig, plan: Plan) -> Size:
    """Of a request's video."""
    tokens = config.transformer.max_text_seq_length + plan.latent_frames * plan.rows * plan.columns
    return Size(tokens, plan.height * plan.width)


def positions(config: CheckpointConfig, size: Size) -> int:
    """Bytes of the learned positions, which the denoiser keeps on the device in float32."""
    transformer = config.transformer
    return _FLOAT32 * size.tokens * transformer.dim if transformer.use_learned_positional_embeddings else 0


@cache
def counted() -> dict[str, Any]:
    """The committed table: "architecture" and the fields of `Needs`."""
    found: dict[str, Any] = json.loads((files(__package__) / FILE).read_text())
    return found


def read() -> Needs:
    """The needs of ConsisID-preview."""
    found = counted()
    return Needs(**{**found["needs"], "size": Size(**found["needs"]["size"])})
