"""The VAE's decoder in little memory: the operations of `vae.DecoderFirst` and `vae.DecoderNext`, in their order.

- Caches have the weights' dtype. Those that a chunk leaves take the memory of those that it got.
- A norm's output is made behind the past, in the memory that the next convolution reads.
- Scale, shift and residual are applied in place.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models import vae
from consisid_runtime.models.blueprint import dtype_of
from consisid_runtime.models.configs.vae import CACHE_FRAMES


class InPlaceDecoder(nn.Module):
    """One chunk decoder: float32 latents and the caches in, float32 frames and the next caches out.

    The caches that it gets are overwritten: they are the ones that it returns.
    """

    def __init__(self, original: vae.DecoderFirst | vae.DecoderNext) -> None:
        super().__init__()
        self._original = original

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """latents [1, C, T, h, w], caches [1, C, 2, h', w'] -> frames [1, 3, T', H, W], then the caches."""
        run = _Chunk(self._original.post_quant_conv(latents.to(dtype_of(self._original))), caches)
        frames = run.decode(self._original.decoder)
        return (frames.float(), *run.left)


class _Chunk:
    """One chunk on its way through the network; features are [1, C, T, H, W].

    Args:
        latents: to which every norm refers.
        caches: what the chunk before left, in the network's order; empty for the first one.

    Attributes:
        left: what this chunk leaves, likewise.
    """

    def __init__(self, latents: Tensor, caches: Sequence[Tensor]) -> None:
        self.left: list[Tensor] = []
        self._latents, self._caches, self._first = latents, iter(caches), not caches

    def decode(self, decoder: vae._Decoder) -> Tensor:
        """The decoder's frames."""
        buffer = _behind_past(self._latents)
        buffer[:, :, CACHE_FRAMES:] = self._latents
        x = self._convolve(decoder.conv_in, buffer)
        for layer in decoder.layers():
            x = self._resnet(layer, x) if isinstance(layer, vae.Resnet) else self._upsample(layer, x)
        return self._convolve(decoder.conv_out, self._normed(decoder.norm_out, x))

    def _resnet(self, layer: vae.Resnet, x: Tensor) -> Tensor:
        h = self._convolve(layer.conv1, self._normed(layer.norm1, x))
        h = self._convolve(layer.conv2, self._normed(layer.norm2, h))
        return h.add_(layer.conv_shortcut(x))

    def _upsample(self, layer: vae.Upsample, x: Tensor) -> Tensor:
        frames = x[0].transpose(0, 1).repeat_interleave(2, 3).repeat_interleave(2, 2)
        wider = layer.conv(frames).transpose(0, 1)[None]
        del frames
        return vae.repeat_frames(wider, layer.time, dim=2, first=self._first).contiguous()

    def _normed(self, norm: vae.SpatialNorm, x: Tensor) -> Tensor:
        """The norm's SiLU behind two frames of room for the past, [1, C, T + 2, H, W]."""
        normed = _divided(norm.norm_layer(x), norm.space)
        normed.mul_(self._enlarged(norm.conv_y, norm))
        shift = self._enlarged(norm.conv_b, norm)
        buffer = _behind_past(x)
        into = buffer[:, :, CACHE_FRAMES:]
        torch.add(normed, shift, out=_divided(into, norm.space))
        F.silu(into, inplace=True)
        return buffer

    def _enlarged(self, conv: nn.Module, norm: vae.SpatialNorm) -> Tensor:
        """Scale or shift, [1, C, T, h, 1, W]: one row for all that are equal."""
        frames = vae.repeat_frames(conv(self._latents), norm.time, dim=2, first=self._first)
        return frames.repeat_interleave(norm.space, 4).unsqueeze(4)

    def _convolve(self, conv: vae.CausalConv, buffer: Tensor) -> Tensor:
        """Put the past into the buffer's first frames, keep its last ones, convolve."""
        last = buffer[:, :, -CACHE_FRAMES:]
        if self._first:
            buffer[:, :, :CACHE_FRAMES] = buffer[:, :, CACHE_FRAMES : CACHE_FRAMES + 1]
            self.left.append(last.clone())
        else:
            cache = next(self._caches)
            buffer[:, :, :CACHE_FRAMES] = cache
            self.left.append(cache.copy_(last))
        return cast(Tensor, conv.conv(buffer))


def _behind_past(x: Tensor) -> Tensor:
    """Memory for frames like those of x behind two of the past, [1, C, T + 2, H, W]."""
    _, channels, count, *size = x.shape
    return x.new_empty(1, channels, count + CACHE_FRAMES, *size)


def _divided(x: Tensor, space: int) -> Tensor:
    """[1, C, T, H, W] -> [1, C, T, H/space, space, W], a view."""
    *sizes, height, width = x.shape
    return x.view(*sizes, height // space, space, width)
