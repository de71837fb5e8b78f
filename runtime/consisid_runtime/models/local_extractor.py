"""The local facial extractor: features of two face networks, at several depths, become the face tokens."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models.configs.dit import LocalExtractorConfig

PREFIX = "local_facial_extractor."


class PerceiverAttention(nn.Module):
    """Latents attend to the context and to themselves."""

    def __init__(self, config: LocalExtractorConfig) -> None:
        super().__init__()
        dim, inner = config.vit_dim, config.num_heads * config.dim_head
        self.heads = config.num_heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, inner, bias=False)
        self.to_kv = nn.Linear(dim, 2 * inner, bias=False)
        self.to_out = nn.Linear(inner, dim, bias=False)

    def forward(self, context: Tensor, latents: Tensor) -> Tensor:
        """context [1, S, dim], latents [1, L, dim] → [1, L, dim]"""
        latents = self.norm2(latents)
        key, value = self.to_kv(torch.cat((self.norm1(context), latents), dim=1)).chunk(2, dim=-1)
        q, k, v = (x.unflatten(-1, (self.heads, -1)).transpose(1, 2) for x in (self.to_q(latents), key, value))
        mixed = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.to_out(mixed.transpose(1, 2).flatten(2)))


class LocalExtractor(nn.Module):
    """Signature `LOCAL_EXTRACTOR`; the checkpoint's keys under `PREFIX`."""

    def __init__(self, config: LocalExtractorConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.vit_dim
        self.latents = nn.Parameter(torch.zeros(1, config.num_querie, dim))
        self.proj_out = nn.Parameter(torch.zeros(dim, config.output_dim))
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(config), _feed_forward(dim, config.ff_mult)]) for _ in range(config.depth)
        )
        for scale in range(config.num_scale):
            self.add_module(f"mapping_{scale}", _mapping(dim, dim, dim))
        self.id_embedding_mapping = _mapping(config.id_dim, dim, dim * config.num_id_token)

    def forward(self, identity: Tensor, clip_hidden: Tensor) -> tuple[Tensor]:
        dtype = self.proj_out.dtype
        faces = self.id_embedding_mapping(identity.to(dtype)).unflatten(-1, (self.config.num_id_token, -1))
        latents = torch.cat((self.latents, faces), dim=1)
        per_scale = self.config.depth // self.config.num_scale
        for i, layer in enumerate(self.layers):
            scale, first = divmod(i, per_scale)
            if first == 0:
                seen = getattr(self, f"mapping_{scale}")(clip_hidden[scale].to(dtype))
                context = torch.cat((faces, seen), dim=1)
            attention, feed_forward = cast(nn.ModuleList, layer)
            latents = latents + attention(context, latents)
            latents = latents + feed_forward(latents)
        return ((latents[:, : self.config.num_querie] @ self.proj_out).float(),)


def _mapping(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, hidden),
        nn.LayerNorm(hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, hidden),
        nn.LayerNorm(hidden),
        nn.LeakyReLU(),
        nn.Linear(hidden, outputs),
    )


def _feed_forward(dim: int, multiple: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim),
        nn.Linear(dim, multiple * dim, bias=False),
        nn.GELU(),
        nn.Linear(multiple * dim, dim, bias=False),
    )
