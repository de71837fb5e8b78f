"""The vision tower of EVA02-CLIP, with the hidden states that ConsisID's local extractor reads.

Sun et al., "EVA-CLIP: Improved Training Techniques for CLIP at Scale" (2023); Fang et al., "EVA-02" (2023): a vision
transformer with 2-D rotary positions, SwiGLU, and a normalisation inside attention and MLP. Weights by the names of the
published checkpoint.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isqrt

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.blueprint import Blueprint, fill

SCALES = 5
"""Number of hidden states returned: before the blocks at 1/6, 2/6, … 5/6 of the depth (4, 8, 12, 16, 20 of 24)."""

_TOWER = "visual."
_TEXT_TOWER = ("text.", "transformer.", "token_embedding.", "ln_final.", "positional_embedding", "text_projection")
_BESIDE = (_TOWER, *_TEXT_TOWER, "logit_scale")
_EPS = 1e-6
_PRETRAINED_GRID = 16  # patches an edge at which the positions' frequencies were trained
_THETA = 10_000.0
_HEAD_DIM = 64  # of the published model, for a file without a rotary table


class EvaVision(nn.Module):
    """EVA02-CLIP's vision tower.

    Args:
        tensors: the checkpoint's, whose shapes decide every size; with `visual.` before each name, the text tower's
            beside them, or bare. Raises `CheckpointInvalid` when they cannot be this network's.
    """

    def __init__(self, tensors: Mapping[str, Tensor]) -> None:
        super().__init__()
        at = Blueprint(_bare(tensors))
        patch = at.shape("patch_embed.proj.weight", 4)[-1]
        _, tokens, width = at.shape("pos_embed", 3)
        grid = isqrt(tokens - 1)
        head_dim = at.shape("rope.freqs_cos", 2)[1] if "rope.freqs_cos" in at else _HEAD_DIM
        depth = (at / "blocks").count()
        if grid * grid != tokens - 1:
            raise CheckpointInvalid(f"pos_embed has {tokens} tokens, expected a square number and one")
        if width % head_dim or head_dim % 4:
            raise CheckpointInvalid(f"width {width} does not divide into heads of {head_dim}, a multiple of 4")
        if depth == 0 or depth % (SCALES + 1):
            raise CheckpointInvalid(f"{depth} blocks found, expected a multiple of {SCALES + 1}")
        self.sizes = {
            "clip_size": grid * patch,
            "clip_tokens": tokens,
            "clip_dim": width,
            "clip_out": at.shape("head.weight", 2)[0],
            "scales": SCALES,
        }
        self.patch_embed = nn.ModuleDict({"proj": (at / "patch_embed").conv("proj", patch, padding=0, bias=True)})
        self.cls_token = at.parameter("cls_token", 3)
        self.pos_embed = at.parameter("pos_embed", 3)
        self.rope = _Rope(grid, head_dim)
        self.blocks = nn.ModuleList(_Block(at / "blocks" / block, head_dim) for block in range(depth))
        self.norm = at.layer_norm("norm", _EPS)
        self.head = at.linear("head")

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, Tensor], dtype: torch.dtype | None = torch.float32) -> EvaVision:
        """The network with the checkpoint's weights as `dtype`, or as they are. Raises `CheckpointInvalid`."""
        with torch.device("meta"):
            network = cls(tensors)
        # The published file holds the rotary table in half precision; the reference computes it too.
        return fill(network, _bare(tensors) | dict(network.rope.named_buffers(prefix="rope")), dtype)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Embedding and hidden states.

        Args:
            image: [1, 3, S, S] float, RGB in 0…1 normalised by CLIP's mean and deviation.

        Returns clip_embedding [1, out], not normalised, and clip_hidden [5, 1, 1 + patches, width].
        """
        x = self.patch_embed["proj"](image.to(self.pos_embed.dtype)).flatten(2).transpose(1, 2)
        x = torch.cat((self.cls_token.expand(x.shape[0], -1, -1), x), dim=1) + self.pos_embed
        rotation = self.rope()
        every = len(self.blocks) // (SCALES + 1)
        hidden = []
        for index, block in enumerate(self.blocks):
            if index and index % every == 0:
                hidden.append(x)
            x = block(x, rotation)
        return self.head(self.norm(x[:, 0])).float(), torch.stack(hidden).float()


class _Rope(nn.Module):
    freqs_cos: Tensor
    freqs_sin: Tensor

    def __init__(self, grid: int, head_dim: int) -> None:
        super().__init__()
        with torch.device("cpu"):  # values, even where the rest is built without any
            cos, sin = rope_table(grid, head_dim)
        self.register_buffer("freqs_cos", cos)
        self.register_buffer("freqs_sin", sin)

    def forward(self) -> tuple[Tensor, Tensor]:
        """cos and sin [1 + patches, head_dim]; the class token is not rotated."""
        return F.pad(self.freqs_cos, (0, 0, 1, 0), value=1.0), F.pad(self.freqs_sin, (0, 0, 1, 0))


class _Attention(nn.Module):
    def __init__(self, at: Blueprint, head_dim: int) -> None:
        super().__init__()
        self.q_proj = at.linear("q_proj", bias=False)
        self.k_proj = at.linear("k_proj", bias=False)
        self.v_proj = at.linear("v_proj", bias=False)
        self.q_bias = at.parameter("q_bias", 1)
        self.v_bias = at.parameter("v_bias", 1)
        self.inner_attn_ln = at.layer_norm("inner_attn_ln", _EPS)
        self.proj = at.linear("proj")
        self._head_dim = head_dim

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        q = _rotate(self._heads(self.q_proj(x) + self.q_bias), rotation)
        k = _rotate(self._heads(self.k_proj(x)), rotation)
        v = self._heads(self.v_proj(x) + self.v_bias)
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        return self.proj(self.inner_attn_ln(attended))  # type: ignore[no-any-return]

    def _heads(self, x: Tensor) -> Tensor:
        return x.reshape(*x.shape[:2], -1, self._head_dim).transpose(1, 2)


class _SwiGLU(nn.Module):
    def __init__(self, at: Blueprint) -> None:
        super().__init__()
        self.w1 = at.linear("w1")
        self.w2 = at.linear("w2")
        self.ffn_ln = at.layer_norm("ffn_ln", _EPS)
        self.w3 = at.linear("w3")

    def forward(self, x: Tensor) -> Tensor:
        return self.w3(self.ffn_ln(F.silu(self.w1(x)) * self.w2(x)))  # type: ignore[no-any-return]


class _Block(nn.Module):
    def __init__(self, at: Blueprint, head_dim: int) -> None:
        super().__init__()
        self.norm1 = at.layer_norm("norm1", _EPS)
        self.attn = _Attention(at / "attn", head_dim)
        self.norm2 = at.layer_norm("norm2", _EPS)
        self.mlp = _SwiGLU(at / "mlp")

    def forward(self, x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
        x = x + self.attn(self.norm1(x), rotation)
        return x + self.mlp(self.norm2(x))  # type: ignore[no-any-return]


def rope_table(grid: int, head_dim: int) -> tuple[Tensor, Tensor]:
    """cos and sin [grid², head_dim] of 2-D rotary positions, the first half of a head for rows, the second for columns.

    Positions are stretched over the grid the tower was pretrained on; each frequency serves two neighbouring channels.
    """
    half = head_dim // 2
    frequencies = 1.0 / _THETA ** (torch.arange(0, half, 2, dtype=torch.float32) / half)
    positions = torch.arange(grid, dtype=torch.float32) / grid * _PRETRAINED_GRID
    angles = torch.outer(positions, frequencies).repeat_interleave(2, dim=1)
    rows, columns = angles[:, None].expand(-1, grid, -1), angles[None].expand(grid, -1, -1)
    table = torch.cat((rows, columns), dim=-1).flatten(0, 1)
    return table.cos(), table.sin()


def _rotate(x: Tensor, rotation: tuple[Tensor, Tensor]) -> Tensor:
    """Rotate neighbouring channel pairs of x [B, heads, tokens, head_dim]."""
    cos, sin = rotation
    even, odd = x.reshape(*x.shape[:-1], -1, 2).unbind(-1)
    return x * cos + torch.stack((-odd, even), dim=-1).flatten(-2) * sin


def _bare(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The vision tower's tensors by their names in this module; every block's copy of the rotary table is left out."""
    if any(name.startswith(_TOWER) for name in tensors):
        if unknown := [name for name in tensors if not name.startswith(_BESIDE)]:
            raise CheckpointInvalid(f"{unknown[0]} is part of neither of CLIP's towers")
        tensors = {name.removeprefix(_TOWER): t for name, t in tensors.items() if name.startswith(_TOWER)}
    return {name: tensor for name, tensor in tensors.items() if ".attn.rope." not in name}
