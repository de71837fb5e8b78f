"""The encoder of T5 v1.1 (arXiv:1910.10683, 2002.05202), as transformers' `T5EncoderModel` names its parameters.

No attention mask: ConsisID was trained with the padding attended to. The residual stream is float32, everything else
has the weights' dtype.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models.blueprint import at_least_float32
from consisid_runtime.models.configs.t5 import T5Config


def position_buckets(length: int, buckets: int, distance: int) -> Tensor:
    """Bucket of each relative position, [length, length] from query to key, int64 below `buckets`.

    Half of the buckets for keys after the query, half before; of each half, half for exact distances and half growing
    logarithmically up to `distance` (T5, section 2.1).
    """
    offset = torch.arange(length)[None] - torch.arange(length)[:, None]
    half = buckets // 2
    exact = half // 2
    away = offset.abs()
    # At 0 the logarithm is unused, but its infinity must not reach the conversion to integers.
    growth = torch.log(away.clamp(min=1).float() / exact) / math.log(distance / exact)
    far = (exact + (growth * (half - exact)).long()).clamp(max=half - 1)
    return torch.where(away < exact, away, far) + half * (offset > 0)


class Norm(nn.RMSNorm):
    """float32 in, the weights' dtype out."""

    def forward(self, x: Tensor) -> Tensor:
        return F.rms_norm(x, self.normalized_shape, at_least_float32(self.weight), self.eps).to(self.weight.dtype)


class Closing(nn.Linear):
    """Ends a feed-forward. In float16 its sums leave the range of T5-XXL's, so they are float32 (as transformers')."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x.float(), self.weight.float()) if x.dtype == torch.float16 else super().forward(x)


class Attention(nn.Module):
    def __init__(self, config: T5Config, owns_bias: bool) -> None:
        super().__init__()
        inner = config.heads * config.head_width
        self.heads = config.heads
        self.q = nn.Linear(config.width, inner, bias=False)
        self.k = nn.Linear(config.width, inner, bias=False)
        self.v = nn.Linear(config.width, inner, bias=False)
        self.o = nn.Linear(inner, config.width, bias=False)
        if owns_bias:
            self.relative_attention_bias = nn.Embedding(config.buckets, config.heads)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        q, k, v = (proj(x).unflatten(-1, (self.heads, -1)).transpose(1, 2) for proj in (self.q, self.k, self.v))
        # T5 leaves the scores unscaled.
        attended = F.scaled_dot_product_attention(q, k, v, attn_mask=bias, scale=1.0)
        return cast(Tensor, self.o(attended.transpose(1, 2).flatten(2)))


class AttentionLayer(nn.Module):
    def __init__(self, config: T5Config, owns_bias: bool) -> None:
        super().__init__()
        self.SelfAttention = Attention(config, owns_bias)
        self.layer_norm = Norm(config.width, config.eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return x + at_least_float32(self.SelfAttention(self.layer_norm(x), bias))


class FeedForward(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi = nn.Linear(config.width, config.hidden, bias=False)
        self.wo = Closing(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.wo(F.relu(self.wi(x))))


class GatedFeedForward(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.wi_0 = nn.Linear(config.width, config.hidden, bias=False)
        self.wi_1 = nn.Linear(config.width, config.hidden, bias=False)
        self.wo = Closing(config.hidden, config.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.wo(F.gelu(self.wi_0(x), approximate="tanh") * self.wi_1(x)))


class FeedForwardLayer(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.DenseReluDense = GatedFeedForward(config) if config.gated else FeedForward(config)
        self.layer_norm = Norm(config.width, config.eps)

    def forward(self, x: Tensor) -> Tensor:
        return x + at_least_float32(self.DenseReluDense(self.layer_norm(x)))


class Block(nn.Module):
    def __init__(self, config: T5Config, owns_bias: bool) -> None:
        super().__init__()
        self.layer = nn.ModuleList([AttentionLayer(config, owns_bias), FeedForwardLayer(config)])

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        return cast(Tensor, self.layer[1](self.layer[0](x, bias)))


class _Stack(nn.Module):
    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.block = nn.ModuleList(Block(config, owns_bias=i == 0) for i in range(config.layers))
        self.final_layer_norm = Norm(config.width, config.eps)

    def forward(self, x: Tensor, bias: Tensor) -> Tensor:
        for block in self.block:
            x = block(x, bias)
        return cast(Tensor, self.final_layer_norm(x))


class T5Encoder(nn.Module):
    """Signature `TEXT_ENCODER`: token_ids [B, L] int64 -> text_states [B, L, D] float32."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = nn.Embedding(config.vocabulary, config.width)
        self.encoder = _Stack(config)

    def forward(self, token_ids: Tensor) -> Tensor:
        # All layers use the first one's relative position bias.
        table = self.get_parameter("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight")
        buckets = position_buckets(token_ids.shape[1], self.config.buckets, self.config.distance)
        bias = table[buckets.to(table.device)].permute(2, 0, 1)[None]
        return cast(Tensor, self.encoder(at_least_float32(self.shared(token_ids)), bias)).float()
