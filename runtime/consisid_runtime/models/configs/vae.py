"""The causal video VAE's configuration, and the caches that follow from it; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consisid_runtime.errors import CheckpointInvalid

# A causal kernel of 3 frames looks back at 2.
CACHE_FRAMES = 2
MID_RESNETS = 2
_ACTIVATIONS = ("silu", "swish")


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
        """Raises `CheckpointInvalid` naming the entry that is missing or unknown to this runtime."""
        try:
            found = cls(
                channels=tuple(config["block_out_channels"]),
                latent_channels=config["latent_channels"],
                layers=config["layers_per_block"],
                groups=config["norm_num_groups"],
                eps=config.get("norm_eps", 1e-6),
                temporal=int(config["temporal_compression_ratio"]),
                scaling_factor=config["scaling_factor"],
                quant=config.get("use_quant_conv", False),
                post_quant=config.get("use_post_quant_conv", False),
            )
        except KeyError as missing:
            raise CheckpointInvalid(f"vae/config.json has no entry {missing}") from None
        if (activation := config.get("act_fn", "silu")) not in _ACTIVATIONS:
            raise CheckpointInvalid(
                f"vae/config.json: act_fn must be one of {', '.join(_ACTIVATIONS)}, got {activation!r}"
            )
        if config.get("shift_factor") is not None:
            raise CheckpointInvalid("vae/config.json: shift_factor is not supported, it must be null")
        if found.temporal not in [2**level for level in range(len(found.channels))]:
            raise CheckpointInvalid(
                f"vae/config.json: temporal_compression_ratio must be a power of 2 below 2^{len(found.channels)} "
                f"(one doubling a level of block_out_channels), got {config['temporal_compression_ratio']}"
            )
        for width in found.channels:
            if width % found.groups:
                raise CheckpointInvalid(
                    f"vae/config.json: norm_num_groups {found.groups} does not divide the {width} channels of a level"
                )
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
