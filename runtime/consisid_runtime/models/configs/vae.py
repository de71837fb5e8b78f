"""`vae/config.json`, parsed and checked, and the caches of the causal video VAE that follow from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consisid_runtime.models.configs.entries import Entries

FILE = "vae/config.json"

# A causal kernel of 3 frames looks back at 2.
CACHE_FRAMES = 2
MID_RESNETS = 2
# Fixed upstream for the norms before the last convolution and SpatialNorm, whatever the configuration says.
NORM_OUT_EPS = 1e-6
_PIXELS = 3

_NOT_USED = ("force_upcast", "invert_scale_latents", "latents_mean", "latents_std")
"""diffusers' class takes these, and neither it nor ConsisID's pipeline reads them."""
_TILING = ("sample_height", "sample_width")
"""Of decoding in tiles, which is off."""


@dataclass(frozen=True, slots=True)
class VAEConfig:
    """What the networks need of `vae/config.json` (diffusers' `AutoencoderKLCogVideoX`).

    Attributes:
        channels: features of each level, finest first.
        latent_channels: channels of a latent.
        layers: residual blocks of an encoder level; a decoder level has one more.
        groups, eps: of the encoder's GroupNorms; the decoder's use the same groups.
        temporal: frames to a latent frame after the first, a power of 2.
        scaling_factor: what latents are multiplied with before denoising.
        quant, post_quant: whether the checkpoint has the pointwise convolutions around the latents.
    """

    channels: tuple[int, ...]
    latent_channels: int
    layers: int
    groups: int
    eps: float
    temporal: int
    scaling_factor: float
    quant: bool
    post_quant: bool

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> VAEConfig:
        """An entry that is not there has diffusers' default.

        Raises `CheckpointInvalid` naming every entry that is wrong or unknown to this runtime.
        """
        at = Entries(FILE, config)
        at.unread(*_NOT_USED, *_TILING)
        at.choice("_class_name", None, (None, "AutoencoderKLCogVideoX"))
        for name in ("in_channels", "out_channels"):
            at.choice(name, _PIXELS, (_PIXELS,))
        at.choice("act_fn", "silu", ("silu", "swish"))
        at.choice("shift_factor", None, (None,))
        channels = at.wholes("block_out_channels", (128, 256, 256, 512))
        found = cls(
            channels=channels,
            latent_channels=at.whole("latent_channels", 16),
            layers=at.whole("layers_per_block", 3, high=256),
            groups=at.whole("norm_num_groups", 32),
            eps=at.number("norm_eps", 1e-6, 0, 1),
            temporal=int(at.choice("temporal_compression_ratio", 4, [2**level for level in range(len(channels))])),
            scaling_factor=at.positive("scaling_factor", 1.15258426),
            quant=at.flag("use_quant_conv", False),
            post_quant=at.flag("use_post_quant_conv", False),
        )
        for name, block in (("down_block_types", "CogVideoXDownBlock3D"), ("up_block_types", "CogVideoXUpBlock3D")):
            at.choice(name, [block] * 4, ([block] * len(channels),))
        for width in {*found.channels}:
            divides = width % found.groups == 0
            at.require("norm_num_groups", found.groups, divides, f"a divisor of block_out_channels' {width}")
        for name, there in (("use_quant_conv", found.quant), ("use_post_quant_conv", found.post_quant)):
            fits = not there or found.latent_channels == _PIXELS
            at.require(name, there, fits, f"false: diffusers' convolution has {_PIXELS} channels, not latent_channels")
        at.done()
        return found

    @property
    def spatial(self) -> int:
        """Pixels to a latent along height and width."""
        return 1 << (len(self.channels) - 1)

    @property
    def temporal_levels(self) -> int:
        """How many of the decoder's levels, coarsest first, double the frames."""
        return self.temporal.bit_length() - 1


def decoder_caches(config: VAEConfig) -> list[tuple[int, int, int]]:
    """(channels, frames, scale) of each cache that one decoder chunk leaves to the next, in the network's order.

    One for every convolution of 3 frames: its last two input frames. `scale` multiplies the latents' height and width.
    """
    widths = config.channels[::-1]
    caches = [(config.latent_channels, 1)]
    caches += [(widths[0], 1)] * 2 * MID_RESNETS
    for level, (before, width) in enumerate(zip((widths[0], *widths), widths, strict=False)):
        caches += [(before, 2**level)] + [(width, 2**level)] * (2 * config.layers + 1)
    caches += [(widths[-1], config.spatial)]
    return [(channels, CACHE_FRAMES, scale) for channels, scale in caches]
