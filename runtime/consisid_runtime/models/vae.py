"""The causal video VAE's decoder (CogVideoX), of chunks with explicit caches.

Parameter names are those of diffusers' `AutoencoderKLCogVideoX`, whose other half is `vae_encoder`. Frames inside are
[B, C, T, H, W]. Latents and frames are float32; inside, and in the caches, everything has the weights' dtype.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models.blueprint import dtype_of
from consisid_runtime.models.configs.vae import CACHE_FRAMES, MID_RESNETS, NORM_OUT_EPS, VAEConfig


def repeat_frames(x: Tensor, times: int, *, dim: int, first: bool) -> Tensor:
    """Every frame along `dim` `times` times, but the first of them once where it is the video's."""
    if times == 1:
        return x
    if not first:
        return x.repeat_interleave(times, dim)
    return torch.cat([x.narrow(dim, 0, 1), x.narrow(dim, 1, x.shape[dim] - 1).repeat_interleave(times, dim)], dim)


class Chunk:
    """What a decoder chunk knows of the chunks around it.

    Args:
        latents: [1, C, T, h, w], to which every norm refers.
        caches: what the chunk before left, in the network's order; empty for the first chunk.
    """

    def __init__(self, latents: Tensor, caches: Sequence[Tensor]) -> None:
        self.latents = latents
        self.first = not caches
        self.left: list[Tensor] = []
        self._caches = iter(caches)

    def with_past(self, x: Tensor) -> Tensor:
        """x preceded by its past; before the first frame that is the first frame again."""
        past = x[:, :, :1].expand(-1, -1, CACHE_FRAMES, -1, -1) if self.first else next(self._caches)
        # A view would keep the whole of x alive until the next chunk.
        self.left.append(x[:, :, -CACHE_FRAMES:].clone())
        return torch.cat([past, x], dim=2)

    def in_time(self, x: Tensor, times: int) -> Tensor:
        """x [B, C, T, H, W] -> every frame `times` times; the video's very first once."""
        return repeat_frames(x, times, dim=2, first=self.first)


class CausalConv(nn.Module):
    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out, 3, padding=(0, 1, 1))

    def forward(self, x: Tensor, chunk: Chunk) -> Tensor:
        return cast(Tensor, self.conv(chunk.with_past(x)))


class PointConv(nn.Module):
    """A pointwise convolution, nested like the causal ones."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = nn.Conv3d(channels, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x))


class SpatialNorm(nn.Module):
    """GroupNorm whose scale and shift are read from the latents (SpatialNorm of MoVQ, arXiv:2209.09002).

    Pointwise convolutions commute with nearest-neighbour enlargement, so they run at the latents' size.
    `time` and `space` are the enlargement from latents to features.
    """

    def __init__(self, channels: int, config: VAEConfig, time: int, space: int) -> None:
        super().__init__()
        self.norm_layer = nn.GroupNorm(config.groups, channels, NORM_OUT_EPS)
        self.conv_y = PointConv(config.latent_channels, channels)
        self.conv_b = PointConv(config.latent_channels, channels)
        self.time, self.space = time, space

    def forward(self, x: Tensor, chunk: Chunk) -> Tensor:
        scale, shift = (
            chunk.in_time(conv(chunk.latents), self.time).repeat_interleave(self.space, 4).unsqueeze(4)
            for conv in (self.conv_y, self.conv_b)
        )
        normed = self.norm_layer(x)
        # All rows of one latent's share scale and shift, which are never made at the features' height.
        rows = normed.reshape(*normed.shape[:3], -1, self.space, normed.shape[4])
        return cast(Tensor, (rows * scale + shift).flatten(3, 4))


class Resnet(nn.Module):
    def __init__(self, channels: int, out: int, config: VAEConfig, time: int, space: int) -> None:
        super().__init__()
        self.norm1 = SpatialNorm(channels, config, time, space)
        self.conv1 = CausalConv(channels, out)
        self.norm2 = SpatialNorm(out, config, time, space)
        self.conv2 = CausalConv(out, out)
        self.conv_shortcut = nn.Conv3d(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor, chunk: Chunk) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x, chunk)), chunk)
        h = self.conv2(F.silu(self.norm2(h, chunk)), chunk)
        return cast(Tensor, h + self.conv_shortcut(x))


class Upsample(nn.Module):
    """Doubles height and width by the nearest neighbour, and frames where `time` is 2, which are convolved once.

    `F.interpolate` gives the same bits, but becomes ONNX's `Resize`, which is slow in ONNX Runtime for five axes.
    """

    def __init__(self, channels: int, time: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)
        self.time = time

    def forward(self, x: Tensor, chunk: Chunk) -> Tensor:
        frames = x.transpose(1, 2).repeat_interleave(2, 4).repeat_interleave(2, 3)
        wider: Tensor = self.conv(frames.flatten(0, 1))
        return chunk.in_time(wider.reshape(*frames.shape[:2], *wider.shape[1:]).transpose(1, 2), self.time)


class Block(nn.Module):
    """Residual blocks at one enlargement, then maybe a doubling."""

    def __init__(self, channels: int, out: int, layers: int, config: VAEConfig, level: int) -> None:
        super().__init__()
        time, space = 2 ** min(level, config.temporal_levels), 2**level
        self.resnets = nn.ModuleList(
            Resnet(channels if i == 0 else out, out, config, time, space) for i in range(layers)
        )
        self.upsamplers = nn.ModuleList()


class _Decoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        widths = config.channels[::-1]
        inputs = (widths[0], *widths)
        self.conv_in = CausalConv(config.latent_channels, widths[0])
        self.mid_block = Block(widths[0], widths[0], MID_RESNETS, config, level=0)
        self.up_blocks = nn.ModuleList(
            Block(inputs[level], width, config.layers + 1, config, level) for level, width in enumerate(widths)
        )
        for level, block in enumerate(list(self.up_blocks)[:-1]):
            doubling = 2 if level < config.temporal_levels else 1
            cast(Block, block).upsamplers.append(Upsample(widths[level], doubling))
        self.norm_out = SpatialNorm(widths[-1], config, config.temporal, config.spatial)
        self.conv_out = CausalConv(widths[-1], 3)

    def layers(self) -> Iterator[Resnet | Upsample]:
        """What features pass between `conv_in` and `norm_out`, in order."""
        for block in cast(Iterable[Block], (self.mid_block, *self.up_blocks)):
            yield from cast(Iterable[Resnet | Upsample], (*block.resnets, *block.upsamplers))

    def forward(self, chunk: Chunk) -> Tensor:
        x = self.conv_in(chunk.latents, chunk)
        for layer in self.layers():
            x = layer(x, chunk)
        return cast(Tensor, self.conv_out(F.silu(self.norm_out(x, chunk)), chunk))


class _ChunkDecoder(nn.Module):
    """Both chunk decoders have the same parameters; chunks of 3, 2, 2, … latents are part of the trained function.

    GroupNorm takes its statistics over a chunk, so another division gives another video.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        width = config.latent_channels
        self.post_quant_conv = nn.Conv3d(width, width, 1) if config.post_quant else nn.Identity()
        self.decoder = _Decoder(config)

    def decode(self, latents: Tensor, caches: Sequence[Tensor]) -> tuple[Tensor, ...]:
        own = dtype_of(self)
        chunk = Chunk(self.post_quant_conv(latents.to(own)), [cache.to(own) for cache in caches])
        frames = self.decoder(chunk)
        return (frames.float(), *chunk.left)


class DecoderFirst(_ChunkDecoder):
    """latents [1, C, 3, h, w] -> frames [1, 3, 2·temporal + 1, H, W] about [-1, 1], then caches for the next chunk."""

    def forward(self, latents: Tensor) -> tuple[Tensor, ...]:
        return self.decode(latents, ())


class DecoderNext(_ChunkDecoder):
    """latents [1, C, 2, h, w] and caches -> frames [1, 3, 2·temporal, H, W] about [-1, 1], then the next caches."""

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        return self.decode(latents, caches)
