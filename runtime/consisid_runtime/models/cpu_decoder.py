"""The VAE's decoder for processors: the same function as `vae.DecoderFirst` and `vae.DecoderNext`, with less work.

Features are [T, C, H, W], frame by frame, so that what joins and divides frames moves whole blocks of memory:

- A causal convolution over frames is a filter of three taps in time, whose taps are convolutions of single frames.
  Winograd's F(2, 3) makes two frames from four of them instead of six (Winograd 1980; Lavin & Gray, arXiv:1509.09308).
- Norm, scale and shift are one multiplication and one addition, whose factors are made at the latents' size, enlarged
  along rows only, and applied to all rows that share them.
- Frames that an enlargement in time repeats are convolved once.
- Convolutions, norms and caches are made in the memory of what they are made from.

In float32 the result differs from the original by rounding alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models import vae
from consisid_runtime.models.configs.vae import CACHE_FRAMES

_AT_ONCE = 4 * 2**20
"""Bytes of features that an operator makes at once: few, so that they stay in the processor's cache."""


class CpuDecoder(nn.Module):
    """One chunk decoder, with its signature: latents and caches in, frames and the next caches out.

    The caches that it gets are overwritten: they are the ones that it returns.

    Args:
        original: `DecoderFirst` or `DecoderNext`, in float32; its convolutions over time are emptied.
    """

    def __init__(self, original: vae.DecoderFirst | vae.DecoderNext) -> None:
        super().__init__()
        self._original = original
        self._convolutions = {conv: TimeConv(conv.conv) for conv in _causal(original)}
        for left in original.parameters():
            left.data = left.clone()  # else it would keep all of the weights' file mapped

    def forward(self, latents: Tensor, *caches: Tensor) -> tuple[Tensor, ...]:
        """latents [1, C, T, h, w], caches [1, C, 2, h', w'] -> frames [1, 3, T', H, W], then the caches."""
        frames = self._original.post_quant_conv(latents)[0].transpose(0, 1).contiguous()
        run = _Chunk(frames, caches, self._convolutions)
        video = run.decode(self._original.decoder)
        return (video.transpose(0, 1)[None], *run.left)


class TimeConv:
    """A causal 3×3×3 convolution of frames that begin with their past, [T + 2, C, H, W] -> [T, O, H, W]."""

    def __init__(self, conv: nn.Conv3d) -> None:
        first, middle, last = conv.weight.detach().unbind(2)
        both = (first + last) / 2
        self._filters = [t.contiguous() for t in (first, both + middle / 2, both - middle / 2, last)]
        self._bias = conv.bias
        self.outputs = len(first)
        conv.weight = nn.Parameter(torch.empty(0), requires_grad=False)

    def __call__(self, frames: Tensor, into: Tensor, *, add: bool = False) -> None:
        """Put the result into `into` [T, O, H, W], or add it.

        `into` may be the frames behind their past: the last ones are made first.
        """
        count, (before, plus, minus, after) = len(into), self._filters
        if count % 2:
            taps = torch.cat((before, plus - minus, after), dim=1)
            single = F.conv2d(frames[-3:].flatten(0, 1)[None], taps, self._bias, padding=1)
            into[-1:] = into[-1:] + single if add else single
        for pairs in reversed(_groups(count // 2, into[0])):
            begin, end = 2 * pairs.start, 2 * pairs.stop
            d0, d1, d2, d3 = (frames[begin + k : end + k : 2] for k in range(4))
            first = F.conv2d(d0 - d2, before, padding=1)
            total = F.conv2d(d1 + d2, plus, self._bias, padding=1)
            difference = F.conv2d(d2 - d1, minus, padding=1)
            last = F.conv2d(d1 - d3, after, padding=1)
            even, odd = into[begin:end:2], into[begin + 1 : end : 2]
            torch.add(first.add_(total), difference, out=first if add else even)
            torch.sub(total.sub_(difference), last, out=total if add else odd)
            if add:
                even += first
                odd += total


class _Chunk:
    """One chunk on its way through the network.

    Args:
        latents: [T, C, h, w], to which every norm refers.
        caches: [1, C, 2, h', w'] in the network's order, what the chunk before left; empty for the first one.

    Attributes:
        left: what this chunk leaves, likewise.
    """

    def __init__(self, latents: Tensor, caches: Sequence[Tensor], convolutions: dict[vae.CausalConv, TimeConv]) -> None:
        self.left: list[Tensor] = []
        self._latents, self._caches, self._convolutions = latents, iter(caches), convolutions
        self._first = not caches

    def decode(self, decoder: vae._Decoder) -> Tensor:
        """The decoder's frames, [T', 3, H, W]."""
        buffer = _behind_past(self._latents)
        buffer[CACHE_FRAMES:] = self._latents
        x = self._convolve(decoder.conv_in, buffer)
        for layer in decoder.layers():
            x = self._resnet(layer, x) if isinstance(layer, vae.Resnet) else self._upsample(layer, x)
        return self._convolve(decoder.conv_out, self._normed(decoder.norm_out, x, _behind_past(x)))

    def _resnet(self, layer: vae.Resnet, x: Tensor) -> Tensor:
        """In the memory of x, and of one buffer, where both have as many channels."""
        buffer = self._normed(layer.norm1, x, _behind_past(x))
        shortcut = layer.conv_shortcut
        if isinstance(shortcut, nn.Conv3d):
            x = _pointwise(shortcut, x)
        h = _behind_past(x) if isinstance(shortcut, nn.Conv3d) else buffer
        self._convolve(layer.conv1, buffer, h[CACHE_FRAMES:])
        del buffer
        self._normed(layer.norm2, h[CACHE_FRAMES:], h)
        return self._convolve(layer.conv2, h, x, add=True)

    def _upsample(self, layer: vae.Upsample, x: Tensor) -> Tensor:
        count, channels, height, width = x.shape
        wider = x.new_empty(count, channels, 2 * height, 2 * width)
        for some in _groups(count, wider[0]):
            wider[some] = layer.conv(x[some].repeat_interleave(2, 3).repeat_interleave(2, 2))
        return vae.repeat_frames(wider, layer.time, dim=0, first=self._first)

    def _normed(self, norm: vae.SpatialNorm, x: Tensor, buffer: Tensor) -> Tensor:
        """The buffer, with the norm's SiLU behind two frames of room for the past; x may lie there."""
        factor, offset = (
            _rows(vae.repeat_frames(part, norm.time, dim=0, first=self._first), norm.space)
            for part in self._affine(norm, x)
        )
        into = buffer[CACHE_FRAMES:]
        torch.addcmul(offset, _divided(x, norm.space), factor, out=_divided(into, norm.space))
        F.silu(into, inplace=True)
        return buffer

    def _affine(self, norm: vae.SpatialNorm, x: Tensor) -> tuple[Tensor, Tensor]:
        """Factor and offset of the norm, [T, C, h, w] of the latents, with the statistics of x in them."""
        layer = norm.norm_layer
        count, channels, height, width = x.shape
        groups, eps = layer.num_groups, layer.eps
        mean, scales = x.new_empty(2, count, groups)
        for some in _groups(count, x[0]):
            # Of each frame. `var_mean` is eight times slower; the normed frames are not used.
            size = some.stop - some.start, channels, height * width, groups, eps
            _, mean[some], scales[some] = torch.native_group_norm(x[some], None, None, *size)
        centre = mean.mean(0)
        variance = (scales**-2 + (mean - centre) ** 2).mean(0)
        repeat = channels // groups
        gain = layer.weight * variance.rsqrt().repeat_interleave(repeat)
        rest = layer.bias - centre.repeat_interleave(repeat) * gain
        scale, shift = (_pointwise(conv.conv, self._latents) for conv in (norm.conv_y, norm.conv_b))
        return scale * gain[:, None, None], shift.addcmul(scale, rest[:, None, None])

    def _convolve(
        self, conv: vae.CausalConv, buffer: Tensor, into: Tensor | None = None, *, add: bool = False
    ) -> Tensor:
        """Put the past into the buffer, keep its last frames, convolve: as `TimeConv`, or into new memory."""
        last = buffer[-CACHE_FRAMES:].transpose(0, 1)[None]
        if self._first:
            buffer[:CACHE_FRAMES] = buffer[CACHE_FRAMES]
            self.left.append(last.clone(memory_format=torch.contiguous_format))
        else:
            cache = next(self._caches)
            buffer[:CACHE_FRAMES] = cache[0].transpose(0, 1)
            self.left.append(cache.copy_(last))
        convolve = self._convolutions[conv]
        if into is None:
            into = buffer.new_empty(len(buffer) - CACHE_FRAMES, convolve.outputs, *buffer.shape[2:])
        convolve(buffer, into, add=add)
        return into


def _groups(count: int, frame: Tensor) -> list[slice]:
    """Divides `count` frames, or pairs of them, into groups that pass an operator at once."""
    size = max(1, _AT_ONCE // frame.nbytes)
    return [slice(start, min(start + size, count)) for start in range(0, count, size)]


def _behind_past(x: Tensor) -> Tensor:
    """Memory for frames like those of x behind two of the past, [T + 2, C, H, W]."""
    return x.new_empty(len(x) + CACHE_FRAMES, *x.shape[1:])


def _causal(network: nn.Module) -> list[vae.CausalConv]:
    return [layer for layer in network.modules() if isinstance(layer, vae.CausalConv)]


def _pointwise(conv: nn.Conv3d, x: Tensor) -> Tensor:
    return F.conv2d(x, conv.weight.squeeze(2), conv.bias)


def _divided(x: Tensor, space: int) -> Tensor:
    """[T, C, H, W] -> [T, C, H/space, space, W], a view."""
    count, channels, height, width = x.shape
    return x.view(count, channels, height // space, space, width)


def _rows(x: Tensor, space: int) -> Tensor:
    """[T, C, h, w] -> [T, C, h, 1, w·space]: one row for all that are equal."""
    return x.repeat_interleave(space, 3).unsqueeze(3)
