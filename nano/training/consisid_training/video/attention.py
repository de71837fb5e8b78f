"""Computes attention on a CPU as two matrix products, which in bfloat16 are faster than PyTorch's fused attention."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from consisid_runtime.models.dit import rotate, signed


class PlainAttention:
    """A processor for diffusers' `Attention`, equivalent to its `CogVideoXAttnProcessor2_0`."""

    def __call__(
        self, attn: Any, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask: None = None,
        image_rotary_emb: tuple[Tensor, Tensor] | None = None,
    ) -> tuple[Tensor, Tensor]:  # fmt: skip
        length = encoder_hidden_states.shape[1]
        tokens = torch.cat([encoder_hidden_states, hidden_states], dim=1)
        query, key, value = (
            linear(tokens).unflatten(-1, (attn.heads, -1)).transpose(1, 2)
            for linear in (attn.to_q, attn.to_k, attn.to_v)
        )
        query, key = attn.norm_q(query), attn.norm_k(key)
        if image_rotary_emb is not None:
            # Text is not rotated.
            cos = F.pad(image_rotary_emb[0], (0, 0, length, 0), value=1.0)
            sin = F.pad(signed(image_rotary_emb[1]), (0, 0, length, 0))
            query, key = rotate(query, cos, sin).to(value.dtype), rotate(key, cos, sin).to(value.dtype)
        if tokens.device.type == "cpu":
            scores = (query * query.shape[-1] ** -0.5).flatten(0, 1) @ key.flatten(0, 1).transpose(1, 2)
            mixed = (scores.softmax(-1).to(value.dtype) @ value.flatten(0, 1)).unflatten(0, query.shape[:2])
        else:
            mixed = F.scaled_dot_product_attention(query, key, value)
        out = attn.to_out[0](mixed.transpose(1, 2).flatten(2))
        return out[:, length:], out[:, :length]
