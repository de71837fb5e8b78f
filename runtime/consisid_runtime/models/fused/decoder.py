"""The VAE's decoder in channels-last on fused norms: the operations of `vae.DecoderFirst` and `vae.DecoderNext`.

- One operator makes a norm, its SiLU and the past in front of them, in the memory that the next convolution reads.
- Features keep the layout in which cuDNN's 16-bit convolutions work, so that none is converted.
- Caches have the weights' dtype. Those that a chunk leaves take the memory of those that it got.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor, nn

from consisid_runtime.models import vae
from consisid_runtime.models.blueprint import dtype_of
from consisid_runtime.models.configs.vae import CACHE_FRAMES


class ChannelsLastDecoder(nn.Module):
    """One chunk decoder: float32 latents and the caches in, float32 frames and the next caches out.

    The caches that it gets are overwritten: they are the ones that it returns.

    Args:
        original: its convolutions get their weights in channels-last.
        operators: `consisid_kernels.reference`, or a module of kernels with the same names and arguments.
    """

    def __init__(self, original: vae.DecoderFirst | vae.DecoderNext, operators: ModuleType) -> None:
        super().__init__()
        self._original, self._ops = original, operators
        for module in original.modules():
            if isinstance(module, nn.Conv2d | nn.Conv3d):
                layout = torch.channels_last_3d if isinstance(module, nn.Conv3d) else torch.channels_last
                module.weight = nn.Parameter(module.weight.to(memory_format=layout), requires_grad=False)

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """latents [1, C, T, h, w], caches [1, C, 2, h', w'] -> frames [1, 3, T', H, W], then the caches."""
        own = dtype_of(self._original)
        z = self._original.post_quant_conv(_channels_first(_channels_last(latents.to(own))))
        run = _Chunk(_channels_last(z), [_channels_last(cache.to(own)) for cache in caches], self._ops)
        frames = run.decode(self._original.decoder)
        return (_channels_first(frames).float(), *map(_channels_first, run.left))


class _Chunk:
    """One chunk on its way through the network; features are [1, T, H, W, C].

    Args:
        latents: to which every norm refers.
        caches: what the chunk before left, in the network's order; empty for the first one.

    Attributes:
        left: what this chunk leaves, likewise.
    """

    def __init__(self, latents: Tensor, caches: Sequence[Tensor], operators: ModuleType) -> None:
        self.left: list[Tensor] = []
        self._latents, self._caches, self._ops = latents, caches, operators

    def decode(self, decoder: vae._Decoder) -> Tensor:
        """The decoder's frames."""
        past = self._past()
        before = self._latents[:, :1].expand(-1, CACHE_FRAMES, -1, -1, -1) if past is None else past
        x = self._convolve(decoder.conv_in, torch.cat((before, self._latents), 1))
        for layer in decoder.layers():
            x = self._resnet(layer, x) if isinstance(layer, vae.Resnet) else self._upsample(layer, x)
        return self._convolve(decoder.conv_out, self._normed(decoder.norm_out, x))

    def _resnet(self, layer: vae.Resnet, x: Tensor) -> Tensor:
        h = self._convolve(layer.conv1, self._normed(layer.norm1, x))
        h = self._convolve(layer.conv2, self._normed(layer.norm2, h))
        return h.add_(_channels_last(layer.conv_shortcut(_channels_first(x))))

    def _upsample(self, layer: vae.Upsample, x: Tensor) -> Tensor:
        _, frames, height, width, channels = x.shape
        wide = x[0, :, :, None, :, None].expand(-1, -1, 2, -1, 2, -1)
        wider = layer.conv(wide.reshape(frames, 2 * height, 2 * width, channels).movedim(-1, 1))
        del wide
        frames_last = wider.movedim(1, -1)[None].contiguous()
        return vae.repeat_frames(frames_last, layer.time, dim=1, first=not self._caches)

    def _normed(self, norm: vae.SpatialNorm, x: Tensor) -> Tensor:
        """The norm's SiLU behind two frames of the past, [1, T + 2, H, W, C]."""
        layer, z = norm.norm_layer, _channels_first(self._latents)
        scale, shift = (_channels_last(conv(z)) for conv in (norm.conv_y, norm.conv_b))
        enlarge, affine = (norm.time, norm.space), (layer.weight, layer.bias)
        found: Tensor = self._ops.spatial_norm_silu(
            x, layer.num_groups, *affine, scale, shift, enlarge, self._past(), layer.eps
        )
        return found

    def _past(self) -> Tensor | None:
        """What comes before the next convolution's input, None in the first chunk."""
        return self._caches[len(self.left)] if self._caches else None

    def _convolve(self, conv: vae.CausalConv, buffer: Tensor) -> Tensor:
        """Keep the buffer's last frames, convolve."""
        last, past = buffer[:, -CACHE_FRAMES:], self._past()
        self.left.append(last.clone() if past is None else past.copy_(last))
        return _channels_last(conv.conv(_channels_first(buffer)))


def _channels_first(x: Tensor) -> Tensor:
    """[1, T, H, W, C] -> [1, C, T, H, W], a view."""
    return x.movedim(-1, 1)


def _channels_last(x: Tensor) -> Tensor:
    """[1, C, T, H, W] -> [1, T, H, W, C], contiguous: a view where it is so in memory."""
    return x.movedim(1, -1).contiguous()
