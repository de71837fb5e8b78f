"""The VAE's encoder (CogVideoX), of single frames.

Parameter names are those of diffusers' `AutoencoderKLCogVideoX`, whose other half is `vae`. Ports are float32; inside,
everything has the weights' dtype.
"""

from __future__ import annotations

from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models.blueprint import dtype_of
from consisid_runtime.models.configs.vae import MID_RESNETS, NORM_OUT_EPS, VAEConfig


class FrameConv(nn.Conv3d):
    """A causal convolution over a single frame, [B, C, H, W].

    The frame stands in for its own past, so the kernel's frames see the same input and add up to a kernel of one.
    """

    def __init__(self, channels: int, out: int, kernel: int) -> None:
        super().__init__(channels, out, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, self.weight.sum(2), self.bias, padding=self.weight.shape[-1] // 2)


class FrameCausalConv(nn.Module):
    """The checkpoint nests causal convolutions in a module of their own."""

    def __init__(self, channels: int, out: int) -> None:
        super().__init__()
        self.conv = FrameConv(channels, out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(x))


class FrameResnet(nn.Module):
    def __init__(self, channels: int, out: int, config: VAEConfig) -> None:
        super().__init__()
        self.norm1 = nn.GroupNorm(config.groups, channels, config.eps)
        self.conv1 = FrameCausalConv(channels, out)
        self.norm2 = nn.GroupNorm(config.groups, out, config.eps)
        self.conv2 = FrameCausalConv(out, out)
        self.conv_shortcut = FrameConv(channels, out, 1) if channels != out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv1(F.silu(self.norm1(x)))
        h = self.conv2(F.silu(self.norm2(h)))
        return cast(Tensor, h + self.conv_shortcut(x))


class Downsample(nn.Module):
    """Halves height and width. A single frame has nothing to be halved in time."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv(F.pad(x, (0, 1, 0, 1))))


class FrameBlock(nn.Module):
    """Residual blocks, then maybe a halving."""

    def __init__(self, channels: int, out: int, layers: int, config: VAEConfig, downsample: bool) -> None:
        super().__init__()
        self.resnets = nn.ModuleList(FrameResnet(channels if i == 0 else out, out, config) for i in range(layers))
        self.downsamplers = nn.ModuleList([Downsample(out)] if downsample else [])

    def forward(self, x: Tensor) -> Tensor:
        for layer in (*self.resnets, *self.downsamplers):
            x = layer(x)
        return x


class _Encoder(nn.Module):
    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        first, last = config.channels[0], config.channels[-1]
        inputs = (first, *config.channels)
        self.conv_in = FrameCausalConv(3, first)
        self.down_blocks = nn.ModuleList(
            FrameBlock(inputs[i], width, config.layers, config, downsample=i < len(config.channels) - 1)
            for i, width in enumerate(config.channels)
        )
        self.mid_block = FrameBlock(last, last, MID_RESNETS, config, downsample=False)
        self.norm_out = nn.GroupNorm(config.groups, last, NORM_OUT_EPS)
        self.conv_out = FrameCausalConv(last, 2 * config.latent_channels)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv_in(x)
        for block in self.down_blocks:
            x = block(x)
        return cast(Tensor, self.conv_out(F.silu(self.norm_out(self.mid_block(x)))))


class VAEEncoder(nn.Module):
    """Signature `VAE_ENCODER`: image [B, 3, H, W] in [-1, 1] -> moments [B, 2·C, H/spatial, W/spatial].

    Moments are mean and log-variance of the latents' distribution, unscaled.
    """

    def __init__(self, config: VAEConfig) -> None:
        super().__init__()
        self.encoder = _Encoder(config)
        width = 2 * config.latent_channels
        self.quant_conv = FrameConv(width, width, 1) if config.quant else nn.Identity()

    def forward(self, image: Tensor) -> Tensor:
        return cast(Tensor, self.quant_conv(self.encoder(image.to(dtype_of(self))))).float()
