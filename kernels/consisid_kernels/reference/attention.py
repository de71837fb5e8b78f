"""Attention, what prepares its inputs, and attention to the face, in the dtype of their inputs."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def joint_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """softmax(q kᵀ / √D) v. q [B, H, M, D], k and v [B, H, N, D] → [B, M, H, D]."""
    return partial_attention(q, k, v)[0].transpose(1, 2).contiguous()


def partial_attention(q: Tensor, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
    """Attention to some of the keys: out [B, H, M, D], and the base-2 logarithm [B, H, M] of the softmax's denominator.

    Tensors with B = 1 are broadcast over the branches.
    """
    scores = (q @ k.mT) * (math.log2(math.e) / math.sqrt(q.shape[-1]))
    denominator = torch.logsumexp(scores * math.log(2), dim=-1) / math.log(2)
    return torch.exp2(scores - denominator[..., None]) @ v, denominator


def merge_attention(out: Tensor, denominator: Tensor, other: Tensor, other_denominator: Tensor) -> Tensor:
    """Attention to all keys, from the results of `partial_attention` for two parts of them; B is broadcast."""
    share = torch.sigmoid((denominator - other_denominator) * math.log(2))[..., None]
    return out * share + other * (1 - share)


def shared_joint_attention(text: tuple[Tensor, Tensor, Tensor], video: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """`joint_attention` of the first layer, whose video tokens are the same in both branches.

    text is q, k, v [B, H, L, D]; video q, k, v [1, H, N, D] → [B, L + N, H, D]. Attention from video to video is
    computed once and merged with the attention to each branch's text.
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
    """Attention's inputs from the fused projection.

    qkv [B, N, 3·C]; norms are weight and bias [D]; cos and sin float32 [N − L, D], interleaved pairs (Su et al. 2021),
    rotate the last N − L tokens. Queries and keys are normalised (LayerNorm over D), then rotated.
    → q, k, v [B, H, N, D].
    """
    q, k, v = torch.unflatten(qkv, -1, (3, heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
    wide = torch.float64 if qkv.dtype == torch.float64 else torch.float32
    rotated = []
    for x, (weight, bias) in ((q, q_norm), (k, k_norm)):
        normed = F.layer_norm(x.to(wide), x.shape[-1:], weight.to(wide), bias.to(wide), eps)
        length = x.shape[2] - cos.shape[0]
        text, video = normed[:, :, :length], normed[:, :, length:]
        even, odd = torch.unflatten(video, -1, (-1, 2)).unbind(-1)
        swapped = torch.stack((-odd, even), dim=-1).flatten(-2)
        rotated.append(torch.cat((text, video * cos + swapped * sin), dim=2).to(qkv.dtype))
    return rotated[0], rotated[1], v.contiguous()


def face_attention(
    x: Tensor, weight: Tensor, bias: Tensor, keys: Tensor, values: Tensor, heads: int, text: int, eps: float
) -> Tensor:
    """x + softmax(LayerNorm(x) keys) values for the tokens from `text` on; the others are returned unchanged.

    x [B, N, C]; keys [C, heads·Q] and values [heads·Q, C] are folded with the projections (`dit.Prepare`) and contain
    the scales of the softmax and of the injection. The softmax is over the Q slots of each head.
    """
    video = x[:, text:]
    normed = F.layer_norm(video, x.shape[-1:], weight, bias, eps)
    scores = normed @ keys
    weights = torch.unflatten(scores, -1, (heads, -1)).softmax(-1).flatten(-2)
    return torch.cat((x[:, :text], video + weights @ values), dim=1)
