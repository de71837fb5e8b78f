"""What every kernel computes, in plain PyTorch: the specification, by the same names and arguments.

B guidance branches, H heads, D channels of a head, N tokens (text first, then video), L text tokens, C = H·D channels.
Everything works in the dtype of its inputs; in float64 it is the truth that kernels are measured against.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT8 = torch.float8_e4m3fn
FLOAT8_LARGEST = 448.0
INT8_LARGEST = 127.0
_WORD = 0xFFFFFFFF


def joint_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √D) v. q [B, H, M, D], k and v [B, H, N, D] → [B, M, H, D], whose heads join without a copy."""
    return partial_attention(q, k, v)[0].transpose(1, 2).contiguous()


def partial_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to some of the keys: out [B, H, M, D], and the base-2 logarithm [B, H, M] of the softmax's denominator.

    Branches broadcast: a tensor with B = 1 serves all.
    """
    scores = (q @ k.mT) * (math.log2(math.e) / math.sqrt(q.shape[-1]))
    denominator = torch.logsumexp(scores * math.log(2), dim=-1) / math.log(2)
    return torch.exp2(scores - denominator[..., None]) @ v, denominator


def merge_attention(out: Tensor, denominator: Tensor, other: Tensor, other_denominator: Tensor) -> Tensor:
    """Attention to all keys from `partial_attention` to two parts of them. Branches broadcast."""
    share = torch.sigmoid((denominator - other_denominator) * math.log(2))[..., None]
    return out * share + other * (1 - share)


def shared_joint_attention(text: tuple[Tensor, Tensor, Tensor], video: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """`joint_attention` of the first layer, whose video tokens are the same in both branches.

    text is q, k, v [B, H, L, D]; video q, k, v [1, H, N, D] → [B, L + N, H, D]. What video pays to video is computed
    once and merged with each branch's text.
    """
    (text_q, text_k, text_v), (video_q, video_k, video_v) = text, video
    parts = [
        merge_attention(*partial_attention(q, video_k, video_v), *partial_attention(q, text_k, text_v))
        for q in (text_q, video_q)
    ]
    return torch.cat(parts, dim=2).transpose(1, 2).contiguous()


def qkv_epilogue(
    qkv: Tensor,
    q_norm: tuple[Tensor, Tensor],
    k_norm: tuple[Tensor, Tensor],
    cos: Tensor,
    sin: Tensor,
    heads: int,
    eps: float,
) -> tuple[Tensor, Tensor, Tensor]:
    """From the fused projection to attention's inputs.

    qkv [B, N, 3·C]; norms are weight and bias [D]; cos and sin float32 [N − L, D], interleaved pairs (Su et al. 2021),
    turn the last N − L tokens. Queries and keys are normalised (LayerNorm over D), then turned. → q, k, v [B, H, N, D].
    """
    q, k, v = torch.unflatten(qkv, -1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    wide = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    turned = []
    for x, (weight, bias) in ((q, q_norm), (k, k_norm)):
        normed = F.layer_norm(x.to(wide), x.shape[-1:], weight.to(wide), bias.to(wide), eps)
        length = x.shape[2] - cos.shape[0]
        text, video = normed[:, :, :length], normed[:, :, length:]
        even, odd = torch.unflatten(video, -1, (-1, 2)).unbind(-1)
        swapped = torch.stack((-odd, even), dim=-1).flatten(-2)
        turned.append(torch.cat((text, video * cos + swapped * sin), dim=2).to(qkv.dtype))
    return turned[0], turned[1], v.contiguous()


def quantise_tokens(x: Tensor, block: int, dtype: torch.dtype = torch.int8) -> tuple[Tensor, Tensor]:
    """One scale for each `block` tokens of a head: x [B, H, N, D] → 8 bits [B, H, N, D], float32 [B, H, ⌈N/block⌉]."""
    wide = x.float()
    count = -(-x.shape[2] // block)
    padded = F.pad(wide, (0, 0, 0, count * block - x.shape[2]))
    padded = torch.unflatten(padded, 2, (count, block))
    largest = INT8_LARGEST if dtype == torch.int8 else FLOAT8_LARGEST
    scale = _over(padded.abs().amax(dim=(3, 4)).clamp(min=1e-12), largest)
    scaled = (padded / scale[..., None, None]).flatten(2, 3)[:, :, : x.shape[2]]
    return (scaled.round() if dtype == torch.int8 else scaled).clamp(-largest, largest).to(dtype), scale


def _over(x: Tensor, number: float) -> Tensor:
    """The quotient itself: PyTorch on CUDA multiplies by the reciprocal of what is no tensor on the device."""
    return x / x.new_full((), number)


def quantise_channels(x: Tensor) -> tuple[Tensor, Tensor]:
    """One scale for each channel of a head: x [B, H, N, D] → E4M3 [B, H, D, N], float32 [B, H, D].

    Transposed, because tensor cores take 8-bit values with the keys contiguous.
    """
    scale = _over(x.float().abs().amax(dim=2).clamp(min=1e-12), FLOAT8_LARGEST)
    scaled = (x.float() / scale[:, :, None]).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST)
    return scaled.mT.contiguous().to(FLOAT8), scale


def qkv_statistics(
    qkv: Tensor, k_norm: tuple[Tensor, Tensor], cos: Tensor, sin: Tensor, heads: int, eps: float
) -> tuple[Tensor, Tensor]:
    """The keys' mean over the tokens and the scale of each channel of the values, both float32 [B, H, D]."""
    _, k, v = qkv_epilogue(_wide(qkv), k_norm, k_norm, cos, sin, heads, eps)
    return k.mean(dim=2).float(), _over(v.abs().amax(dim=2).clamp(min=1e-12), FLOAT8_LARGEST).float()


def qkv_epilogue_8bit(
    qkv: Tensor,
    q_norm: tuple[Tensor, Tensor],
    k_norm: tuple[Tensor, Tensor],
    cos: Tensor,
    sin: Tensor,
    statistics: tuple[Tensor, Tensor],
    heads: int,
    eps: float,
    blocks: tuple[int, int],
    dtype: torch.dtype = torch.int8,
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """What `joint_attention_8bit` takes, from what `qkv_epilogue` takes and `qkv_statistics` gives.

    `quantise_tokens` of q and of k less its mean, `quantise_channels` of v; nothing is rounded to qkv's dtype between.
    """
    mean, scale = statistics
    q, k, v = qkv_epilogue(_wide(qkv), q_norm, k_norm, cos, sin, heads, eps)
    v8 = (v.float() / scale[:, :, None]).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST).mT.contiguous().to(FLOAT8)
    k = k - mean[:, :, None]
    return quantise_tokens(q, blocks[0], dtype), quantise_tokens(k, blocks[1], dtype), (v8, scale)


def _wide(x: Tensor) -> Tensor:
    return x if x.dtype == torch.float64 else x.float()


def joint_attention_8bit(
    q: tuple[Tensor, Tensor],
    k: tuple[Tensor, Tensor],
    v: tuple[Tensor, Tensor],
    blocks: tuple[int, int],
    dtype: torch.dtype,
) -> Tensor:
    """`joint_attention` of quantised tensors; each is 8 bits, q and k [B, H, N, D], v [B, H, D, N], and scales.

    q and k come from `quantise_tokens` with these `blocks`, k less its mean over the tokens, which the softmax does not
    see (Zhang et al. 2024, SageAttention); v from `quantise_channels`. Softmax weights become E4M3 numbers, 448 for the
    largest of a row, so that none saturates. → `dtype` [B, N, H, D].
    """
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = q, k, v
    rows, columns = (
        _of_tokens(s, block, x.shape[2]) for s, block, x in zip((q_scale, k_scale), blocks, (q8, k8), strict=True)
    )
    scores = (q8.double() * rows) @ (k8.double() * columns).mT / math.sqrt(q8.shape[-1])
    weights = torch.exp(scores - scores.amax(dim=-1, keepdim=True))
    narrow = (weights * FLOAT8_LARGEST).float().to(FLOAT8).double() / FLOAT8_LARGEST
    out = narrow @ v8.double().mT * v_scale[:, :, None].double() / weights.sum(dim=-1, keepdim=True)
    return out.transpose(1, 2).contiguous().to(dtype)


def _of_tokens(scale: Tensor, block: int, tokens: int) -> Tensor:
    return scale.double().repeat_interleave(block, dim=2)[:, :, :tokens, None]


def modulated_norm(
    x: Tensor, weight: Tensor, bias: Tensor, modulation: Tensor, step: Tensor, text: int, eps: float
) -> Tensor:
    """LayerNorm(x) · (1 + scale) + shift, the first `text` tokens with the text's vectors.

    x [B, N, C]; weight and bias [C]; modulation [T, 6, C] is a table of steps, its rows shift, scale, gate of the
    video, then of the text (`dit.Modulate`); step int32 [1] picks one.
    """
    shift, scale, _ = _vectors(modulation, step, x.shape[1], text)
    return F.layer_norm(x, x.shape[-1:], weight, bias, eps) * (1 + scale) + shift


def gated_residual(x: Tensor, y: Tensor, modulation: Tensor, step: Tensor, text: int) -> Tensor:
    """x + gate · y; arguments as `modulated_norm`."""
    return x + _vectors(modulation, step, x.shape[1], text)[2] * y


def gated_residual_norm(
    x: Tensor,
    y: Tensor,
    modulation: Tensor,
    weight: Tensor,
    bias: Tensor,
    next_modulation: Tensor,
    step: Tensor,
    text: int,
    eps: float,
) -> tuple[Tensor, Tensor]:
    """`gated_residual`, and `modulated_norm` of what it gives with the next norm's parameters, in one pass."""
    x = gated_residual(x, y, modulation, step, text)
    return x, modulated_norm(x, weight, bias, next_modulation, step, text, eps)


def _vectors(modulation: Tensor, step: Tensor, tokens: int, text: int) -> tuple[Tensor, ...]:
    rows = modulation.index_select(0, step).reshape(2, 3, -1)
    is_text = (torch.arange(tokens, device=modulation.device) < text)[:, None]
    return tuple(torch.where(is_text, rows[1, i], rows[0, i]) for i in range(3))


def face_attention(
    x: Tensor, weight: Tensor, bias: Tensor, keys: Tensor, values: Tensor, heads: int, text: int, eps: float
) -> Tensor:
    """x, its tokens from `text` on plus what they read from the face: LayerNorm → scores → softmax over slots → values.

    x [B, N, C]; keys [C, heads·Q] and values [heads·Q, C] are folded with the projections (`dit.Prepare`), the scales
    of the softmax and of the injection included. Softmax over each head's Q slots.
    """
    video = x[:, text:]
    normed = F.layer_norm(video, x.shape[-1:], weight, bias, eps)
    scores = normed @ keys
    weights = torch.unflatten(scores, -1, (heads, -1)).softmax(-1).flatten(-2)
    return torch.cat((x[:, :text], video + weights @ values), dim=1)


def guided_step(
    velocity: Tensor, latents: Tensor, previous: Tensor, draw: Tensor, coefficients: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Classifier-free guidance and one step of the solver, in float32.

    velocity [B, …], negative first where B = 2; latents, previous (x0 of the step before) and draw (standard normal)
    [1, …], all finite. coefficients float32 [T, 8] is a table of steps: guidance, then `schedule.Step`'s signal, sigma,
    keep, pull, noise, current, previous; a solver without noise or of first order has zeros there. step int32 [1] picks
    one. → next latents, x0.
    """
    row = coefficients.index_select(0, step).to(latents.dtype)
    guidance, signal, sigma, keep, pull, noise, current, before = row.unbind(1)
    velocity = velocity.to(latents.dtype)
    if velocity.shape[0] == 2:
        negative, positive = velocity.chunk(2)
        velocity = negative + guidance * (positive - negative)
    x0 = signal * latents - sigma * velocity
    return keep * latents - pull * (current * x0 - before * previous) + noise * draw, x0


def guided_step_counter(
    velocity: Tensor, latents: Tensor, previous: Tensor, seed: Tensor, coefficients: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """`guided_step` that draws `counter_noise`; seed int64 [1]."""
    draw = counter_noise(seed, step, latents.numel(), latents.dtype).reshape(latents.shape)
    return guided_step(velocity, latents, previous, draw, coefficients, step)


def counter_noise(seed: Tensor, step: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """`count` standard normal numbers that depend on seed, step and their index only, not on how they are computed.

    Number i is Box and Muller's cosine of the first two words of Philox4x32-10 (Salmon et al. 2011) with the seed as
    key and (i, step, 0, 0) as counter. Of each word the upper 24 bits count, which float32 holds exactly.
    """
    words = philox(torch.arange(count, device=seed.device), step.long(), seed)
    radius, angle = ((word >> 8).to(dtype) for word in words[:2])
    return torch.sqrt(-2 * torch.log((radius + 1) / 2**24)) * torch.cos(angle * (2 * math.pi / 2**24))


def philox(index: Tensor, step: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox4x32 on the counters (index, step, 0, 0); key int64. Words are int64 below 2³²."""
    low, high = key & _WORD, key >> 32 & _WORD
    zero = torch.zeros_like(index)
    words = index, step & _WORD, zero, zero
    for i in range(10):
        # An int64 product wraps at 2⁶⁴, which leaves both of its 32-bit halves as they are.
        first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = (
            (second >> 32 & _WORD) ^ words[1] ^ (low + i * 0x9E3779B9 & _WORD),
            second & _WORD,
            (first >> 32 & _WORD) ^ words[3] ^ (high + i * 0xBB67AE85 & _WORD),
            first & _WORD,
        )
    return words


def linear_gelu(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """GELU(x Wᵀ + b), in its tanh form. x [..., C], weight [out, C], bias [out] → [..., out]."""
    return F.gelu(F.linear(x, weight, bias), approximate="tanh")


def linear_gelu_float8(x: Tensor, weight: Tensor, bias: Tensor, scale: Tensor) -> Tensor:
    """`linear_gelu` divided by `scale` (float32 [1]), as saturated E4M3: the input of the next, quantised layer."""
    wide = linear_gelu(x, weight, bias)
    return (wide / scale.to(wide.dtype)).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST).to(FLOAT8)


def linear_float8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    dtype: torch.dtype,
    gelu: bool = False,
    out_scale: Tensor | None = None,
) -> Tensor:
    """(x · x_scale)(W · weight_scale)ᵀ + b of E4M3 numbers, summed in float32 (float64 where `dtype` is).

    x [..., C] with one scale for all, weight [out, C] with one of each row: [out], bias [out]; `gelu` in its tanh form.
    → `dtype` [..., out]; with `out_scale` divided by it, as saturated E4M3.
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    out = F.linear(x.to(wide), weight.to(wide)) * (x_scale.to(wide) * weight_scale.to(wide)) + bias.to(wide)
    if gelu:
        out = F.gelu(out, approximate="tanh")
    if out_scale is None:
        return out.to(dtype)
    return (out / out_scale.to(wide)).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST).to(FLOAT8)


def spatial_norm_silu(
    x: Tensor,
    groups: int,
    weight: Tensor,
    bias: Tensor,
    scale: Tensor,
    shift: Tensor,
    enlarge: tuple[int, int],
    past: Tensor | None,
    eps: float,
) -> Tensor:
    """SiLU(GroupNorm(x) · scale + shift) preceded by its causal past: the input of the VAE's next convolution.

    Channels last: x [1, T, H, W, C]; scale and shift [1, t, h, w, C] at the latents' size, enlarged to nearest by
    (time, space); past [1, 2, H, W, C] as the chunk before left it, or None before the first frame, which then stands
    in for its own past and is not repeated in time. → [1, T + 2, H, W, C].
    """
    first = past is None
    normed = F.group_norm(x.movedim(-1, 1), groups, weight, bias, eps).movedim(1, -1)
    wide = [_enlarged(tensor, enlarge, first) for tensor in (scale, shift)]
    frames = F.silu(normed * wide[0] + wide[1])
    before = frames[:, :1].expand(-1, 2, -1, -1, -1) if past is None else past
    return torch.cat((before, frames), dim=1)


def _enlarged(x: Tensor, enlarge: tuple[int, int], first: bool) -> Tensor:
    time, space = enlarge
    wide = x.repeat_interleave(time, 1).repeat_interleave(space, 2).repeat_interleave(space, 3)
    return wide[:, time - 1 :] if first else wide
