"""The diffusion transformer, divided by how often its inputs change.

`DiT` holds a checkpoint's parameters under the checkpoint's names. Three modules over its parts do the work, each with
the ports of its signature: `Prepare` once per request, `Modulate` once per schedule, `Step` in the loop. Together they
compute `diffusers.ConsisIDTransformer3DModel.forward`. Ports are float32; inside, everything has the weights' dtype.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models.blueprint import at_least_float32
from consisid_runtime.models.configs.dit import DiTConfig

_QK_NORM_EPS = 1e-6
_TIME_PERIOD = 10000.0


class Attention(nn.Module):
    """Joint self-attention over text and video with normalised, rotated queries and keys."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        dim, head_dim = config.dim, config.attention_head_dim
        self.heads = config.num_attention_heads
        self.to_q = nn.Linear(dim, dim, bias=config.attention_bias)
        self.to_k = nn.Linear(dim, dim, bias=config.attention_bias)
        self.to_v = nn.Linear(dim, dim, bias=config.attention_bias)
        self.norm_q = nn.LayerNorm(head_dim, eps=_QK_NORM_EPS)
        self.norm_k = nn.LayerNorm(head_dim, eps=_QK_NORM_EPS)
        self.to_out = nn.ModuleList([nn.Linear(dim, dim)])

    def forward(self, tokens: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """tokens [B, S, dim], cos and sin [S, head_dim] → [B, S, dim]"""
        q, k, v = (
            linear(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for linear in (self.to_q, self.to_k, self.to_v)
        )
        q, k = rotate(self.norm_q(q), cos, sin), rotate(self.norm_k(k), cos, sin)
        mixed = F.scaled_dot_product_attention(q, k, v)
        return cast(Tensor, self.to_out[0](mixed.transpose(1, 2).flatten(2)))


class FeedForward(nn.Module):
    def __init__(self, dim: int) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"0": nn.ModuleDict({"proj": nn.Linear(dim, 4 * dim)}), "2": nn.Linear(4 * dim, dim)})

    def forward(self, tokens: Tensor) -> Tensor:
        hidden = F.gelu(cast(nn.ModuleDict, self.net["0"])["proj"](tokens), approximate="tanh")
        return cast(Tensor, self.net["2"](hidden))


class Block(nn.Module):
    """One transformer block. `norm1` and `norm2` hold "norm", and in a whole checkpoint also adaLN's "linear"."""

    def __init__(self, norm1: nn.ModuleDict, attn1: nn.Module, norm2: nn.ModuleDict, ff: nn.Module) -> None:
        super().__init__()
        self.norm1, self.attn1, self.norm2, self.ff = norm1, attn1, norm2, ff

    def forward(
        self, text: Tensor, video: Tensor, modulation: Tensor, cos: Tensor, sin: Tensor
    ) -> tuple[Tensor, Tensor]:
        """text [B, L, dim], video [B, N, dim], modulation [2, 6, dim], cos and sin [L + N, head_dim]"""
        length = text.shape[1]
        for part, norm in ((0, self.norm1), (1, self.norm2)):
            shift, scale, gate, text_shift, text_scale, text_gate = modulation[part].chunk(6)
            joint = torch.cat(
                (
                    modulate(norm["norm"](text), text_shift, text_scale),
                    modulate(norm["norm"](video), shift, scale),
                ),
                dim=1,
            )
            joint = self.attn1(joint, cos, sin) if part == 0 else self.ff(joint)
            text = text + text_gate * joint[:, :length]
            video = video + gate * joint[:, length:]
        return text, video


class DiT(nn.Module):
    """The parameters of a ConsisID transformer without its local facial extractor, by the checkpoint's names."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        dim, patch, face_inner = config.dim, config.patch_size, config.cross_attn_num_heads * config.cross_attn_dim_head

        def norm() -> nn.Module:
            return nn.LayerNorm(dim, config.norm_eps, config.norm_elementwise_affine)

        def adaptive(outputs: int) -> nn.ModuleDict:
            return nn.ModuleDict({"linear": nn.Linear(config.time_embed_dim, outputs * dim), "norm": norm()})

        self.patch_embed = nn.ModuleDict(
            {
                "proj": nn.Conv2d(config.in_channels, dim, patch, patch),
                "text_proj": nn.Linear(config.text_embed_dim, dim),
            }
        )
        if config.use_learned_positional_embeddings:
            frames = (config.sample_frames - 1) // config.temporal_compression_ratio + 1
            tokens = frames * (config.sample_height // patch) * (config.sample_width // patch)
            self.patch_embed.register_buffer(
                "pos_embedding", torch.zeros(1, config.max_text_seq_length + tokens, dim), persistent=True
            )
        self.time_embedding = nn.ModuleDict(
            {
                "linear_1": nn.Linear(dim, config.time_embed_dim),
                "linear_2": nn.Linear(config.time_embed_dim, config.time_embed_dim),
            }
        )
        self.transformer_blocks = nn.ModuleList(
            Block(adaptive(6), Attention(config), adaptive(6), FeedForward(dim)) for _ in range(config.num_layers)
        )
        self.perceiver_cross_attention = nn.ModuleList(
            nn.ModuleDict(
                {
                    "norm1": nn.LayerNorm(config.LFE_output_dim),
                    "norm2": nn.LayerNorm(dim),
                    "to_q": nn.Linear(dim, face_inner, bias=False),
                    "to_kv": nn.Linear(config.LFE_output_dim, 2 * face_inner, bias=False),
                    "to_out": nn.Linear(face_inner, dim, bias=False),
                }
            )
            for _ in range(config.dims["face_layers"])
        )
        self.norm_final = norm()
        self.norm_out = adaptive(2)
        self.proj_out = nn.Linear(dim, patch * patch * config.out_channels)


class Prepare(nn.Module):
    """Computes what is constant within a request: signature `DIT_PREPARE`."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.config = dit.config
        self.patch_embed = _parts(dit.patch_embed, "proj", "text_proj")
        self.perceiver_cross_attention = nn.ModuleList(
            _parts(layer, "norm1", "to_q", "to_kv", "to_out") for layer in dit.perceiver_cross_attention
        )

    def forward(
        self,
        text_states: Tensor,
        face_tokens: Tensor,
        image_latents: Tensor,
        text_positions: Tensor,
        video_positions: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        proj, text_proj = self.patch_embed["proj"], self.patch_embed["text_proj"]
        weight, dtype = _weight(proj), _weight(proj).dtype
        text = text_proj(text_states.to(dtype)) + text_positions.to(dtype)
        # The channels are [latents, image latents]; the bias and the positions go with the image half.
        image_weight = weight[:, self.config.out_channels :]
        image = patchify(image_latents.to(dtype), image_weight, cast(Tensor, proj.bias)) + video_positions.to(dtype)
        folded = [self._fold(layer, face_tokens.to(dtype)) for layer in self.perceiver_cross_attention]
        keys, values = (torch.stack(tensors) for tensors in zip(*folded, strict=True))
        return text.float(), image.float(), keys.float(), values.float()

    def _fold(self, layer: nn.Module, face_tokens: Tensor) -> tuple[Tensor, Tensor]:
        """Fold a face attention with known keys and values into two matrices, [dim, heads·Q] and [heads·Q, dim].

        (x Wqᵀ) Kᵀ = x (Wqᵀ Kᵀ) and softmax(·) V Woᵀ = softmax(·) (V Woᵀ), for each head.
        """
        parts, heads, head_dim = (
            cast(nn.ModuleDict, layer),
            self.config.cross_attn_num_heads,
            self.config.cross_attn_dim_head,
        )
        face = parts["to_kv"](parts["norm1"](face_tokens[0]))
        key, value = face.unflatten(-1, (2, heads, head_dim)).permute(1, 2, 0, 3).unbind(0)
        query_weight = torch.unflatten(_weight(parts["to_q"]), 0, (heads, head_dim))
        out_weight = torch.unflatten(_weight(parts["to_out"]), 1, (heads, head_dim)).permute(1, 2, 0)
        keys = (key @ query_weight).flatten(0, 1).mT / math.sqrt(head_dim)
        return keys, (value @ out_weight).flatten(0, 1) * self.config.local_face_scale


class Modulate(nn.Module):
    """Every adaptive norm's shift, scale and gate for some timesteps: signature `DIT_MODULATE`.

    A block's six rows are shift, scale, gate for the video and the same for the text; the final two shift and scale.
    """

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.config = dit.config
        self.time_embedding = dit.time_embedding
        self.transformer_blocks = nn.ModuleList(
            nn.ModuleDict({name: _parts(getattr(block, name), "linear") for name in ("norm1", "norm2")})
            for block in dit.transformer_blocks
        )
        self.norm_out = _parts(dit.norm_out, "linear")

    def forward(self, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        first = self.time_embedding["linear_1"]
        wave = time_wave(timesteps, self.config).to(_weight(first).dtype)
        time = F.silu(self.time_embedding["linear_2"](F.silu(first(wave))))
        norms = [cast(nn.ModuleDict, block)[name] for block in self.transformer_blocks for name in ("norm1", "norm2")]
        blocks = torch.stack([cast(nn.ModuleDict, norm)["linear"](time) for norm in norms], dim=1)
        shape = (self.config.num_layers, 2, 6, self.config.dim)
        final = self.norm_out["linear"](time).unflatten(-1, (2, self.config.dim))
        return torch.unflatten(blocks.flatten(1), 1, shape).float(), final.float()


class Step(nn.Module):
    """The velocity of some latents: signature `DIT_STEP`."""

    def __init__(self, dit: DiT) -> None:
        super().__init__()
        self.config = dit.config
        self.patch_embed = _parts(dit.patch_embed, "proj")
        self.transformer_blocks = nn.ModuleList(
            Block(_parts(block.norm1, "norm"), block.attn1, _parts(block.norm2, "norm"), block.ff)
            for block in cast("list[Block]", dit.transformer_blocks)
        )
        self.perceiver_cross_attention = nn.ModuleList(
            _parts(layer, "norm2") for layer in dit.perceiver_cross_attention
        )
        self.norm_final = dit.norm_final
        self.norm_out = _parts(dit.norm_out, "norm")
        self.proj_out = dit.proj_out

    def forward(
        self,
        latents: Tensor,
        block_modulation: Tensor,
        final_modulation: Tensor,
        text_tokens: Tensor,
        image_tokens: Tensor,
        face_keys: Tensor,
        face_values: Tensor,
        rope_cos: Tensor,
        rope_sin: Tensor,
    ) -> tuple[Tensor]:
        weight = _weight(self.patch_embed["proj"])
        latents, block_modulation, final_modulation, text, image_tokens, face_keys, face_values = (
            tensor.to(weight.dtype)
            for tensor in (
                latents, block_modulation, final_modulation, text_tokens, image_tokens, face_keys, face_values,
            )
        )  # fmt: skip
        frames, rows, columns = image_tokens.shape[1:4]
        video = patchify(latents, weight[:, : self.config.out_channels]) + image_tokens
        video = video.flatten(1, 3).expand(text.shape[0], -1, -1)
        # Text is not rotated: an angle of 0 for it avoids splitting queries and keys in every layer.
        cos = F.pad(rope_cos.flatten(0, 2), (0, 0, text.shape[1], 0), value=1.0)
        sin = F.pad(signed(rope_sin.flatten(0, 2)), (0, 0, text.shape[1], 0))
        for i, block in enumerate(self.transformer_blocks):
            text, video = block(text, video, block_modulation[i], cos, sin)
            layer, injects = divmod(i, self.config.cross_attn_interval)
            if injects == 0:
                normed = cast(nn.ModuleDict, self.perceiver_cross_attention[layer])["norm2"](video)
                heads = self.config.cross_attn_num_heads
                video = video + face_attention(normed, face_keys[layer], face_values[layer], heads)
        shift, scale = final_modulation.chunk(2)
        video = self.proj_out(modulate(self.norm_out["norm"](self.norm_final(video)), shift, scale))
        patch = self.config.patch_size
        grid = video.reshape(-1, frames, rows, columns, self.config.out_channels, patch, patch)
        return (grid.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).float(),)


def modulate(normed: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    return normed * (1 + scale) + shift


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate each pair of neighbouring channels, in float32: (a, b) becomes (a·cos − b·sin, b·cos + a·sin).

    x [B, H, S, D]; cos and sin [S, D], sin with the sign of the formula (`signed`).
    """
    wide = at_least_float32(x)
    swapped = torch.unflatten(wide, -1, (-1, 2)).flip(-1).flatten(-2)
    return (wide * cos + swapped * sin).to(x.dtype)


def signed(sin: Tensor) -> Tensor:
    """The sine, negated for the first channel of each pair, as `rotate` takes it."""
    return sin * torch.tensor([-1.0, 1.0], device=sin.device).repeat(sin.shape[-1] // 2)


def face_attention(normed: Tensor, keys: Tensor, values: Tensor, heads: int) -> Tensor:
    """normed [B, N, dim], keys [dim, heads·Q], values [heads·Q, dim] → [B, N, dim]; softmax over each head's slots."""
    scores = torch.unflatten(normed @ keys, -1, (heads, -1))
    weights = at_least_float32(scores).softmax(-1).to(normed.dtype).flatten(-2)
    return weights @ values


def patchify(latents: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Convolve with stride p: latents [1, F, C, h, w], weight [dim, C, p, p] → [1, F, h/p, w/p, dim]."""
    patch = weight.shape[-1]
    cells = torch.unflatten(torch.unflatten(latents, -1, (-1, patch)), -3, (-1, patch))
    return F.linear(cells.permute(0, 1, 3, 5, 2, 4, 6).flatten(4), weight.flatten(1), bias)


def time_wave(timesteps: Tensor, config: DiTConfig) -> Tensor:
    """Sinusoids of the timesteps, [T] → [T, dim] float32 (Vaswani et al. 2017, as in DDPM)."""
    half = config.dim // 2
    exponent = -math.log(_TIME_PERIOD) * torch.arange(half, dtype=torch.float32, device=timesteps.device)
    angle = timesteps.float()[:, None] * torch.exp(exponent / (half - config.freq_shift))
    waves = (angle.cos(), angle.sin()) if config.flip_sin_to_cos else (angle.sin(), angle.cos())
    return torch.cat(waves, dim=-1)


def _parts(module: nn.Module, *names: str) -> nn.ModuleDict:
    """Some of a module's children, shared, under their own names, so that an exported graph has no unused weights."""
    return nn.ModuleDict({name: cast(nn.ModuleDict, module)[name] for name in names})


def _weight(module: nn.Module) -> Tensor:
    return cast(Tensor, module.weight)
