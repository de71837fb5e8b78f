"""`dit.Step` on fused operators: the same network for a GPU, on this project's kernels."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import cast

import torch
from torch import Tensor, nn

from consisid_runtime.models.dit import Attention, Block, FeedForward, Step, modulate, patchify
from consisid_runtime.models.fused.float8 import Float8Linear

JointAttention = Callable[[Tensor, Tensor, Tensor], Tensor]
"""q, k and v [B, H, N, D] → [B, N, H, D]."""


class FusedBlock(nn.Module):
    """One block's weights as the operators take them: queries, keys and values in one matrix.

    The block's own three matrices are emptied: a checkpoint's are held once, all but those of one block.
    """

    def __init__(self, block: Block) -> None:
        super().__init__()
        attention, feed_forward = cast(Attention, block.attn1), cast(FeedForward, block.ff)
        parts = (attention.to_q, attention.to_k, attention.to_v)
        self.heads = attention.heads
        self.qkv = nn.Linear(1, 1, bias=attention.to_q.bias is not None, device="meta")
        self.qkv.weight = nn.Parameter(torch.cat([part.weight for part in parts]), requires_grad=False)
        if attention.to_q.bias is not None:
            self.qkv.bias = nn.Parameter(torch.cat([part.bias for part in parts]), requires_grad=False)
        for part in parts:
            part.weight = nn.Parameter(torch.empty(0), requires_grad=False)
            part.register_parameter("bias", None)
        self.norm_q, self.norm_k, self.out = attention.norm_q, attention.norm_k, attention.to_out[0]
        self.norms = nn.ModuleList(norm["norm"] for norm in (block.norm1, block.norm2))
        self.inner, self.outer = cast(nn.ModuleDict, feed_forward.net["0"])["proj"], feed_forward.net["2"]
        self.eps = _eps(self.norms[0])

    def affine(self, number: int) -> tuple[Tensor, Tensor]:
        """Weight and bias of the first or second norm."""
        return _affine(self.norms[number - 1])

    def project(self, normed: Tensor, cos: Tensor, sin: Tensor, ops: ModuleType) -> tuple[Tensor, Tensor, Tensor]:
        """normed [B, N, C] → q, k, v [B, H, N, D]; the last tokens, as many as cos has rows, are rotated."""
        norms = _affine(self.norm_q), _affine(self.norm_k)
        qkv, eps = self.qkv(normed), _eps(self.norm_q)
        parts: tuple[Tensor, Tensor, Tensor] = ops.qkv_epilogue(qkv, *norms, cos, sin, self.heads, eps)
        return parts

    def quantise(self, ops: ModuleType) -> None:
        """From now on the four products are of E4M3 numbers."""
        for name in ("qkv", "out", "inner", "outer"):
            setattr(self, name, Float8Linear(cast(nn.Linear, getattr(self, name)), ops))

    def feed_forward(self, normed: Tensor, ops: ModuleType) -> Tensor:
        if isinstance(self.inner, Float8Linear):
            return cast(Float8Linear, self.outer).multiply(*ops.quantise_rows(self.inner(normed), gelu=True))
        return cast(Tensor, self.outer(ops.linear_gelu(normed, *_affine(self.inner))))


class FusedStep(nn.Module):
    """Takes and returns what `dit.Step` does; text and video are one sequence throughout.

    Args:
        step: its queries', keys' and values' matrices are emptied.
        operators: `consisid_kernels.reference`, or a module of kernels with the same names and arguments.
        attention: a form of `operators.joint_attention`, which is taken where none is given.
        float8: whether the blocks' linear layers are of E4M3 numbers.
    """

    def __init__(
        self, step: Step, operators: ModuleType, attention: JointAttention | None = None, *, float8: bool = False
    ) -> None:
        super().__init__()
        self.config, self._ops = step.config, operators
        self._attention: JointAttention = attention or operators.joint_attention
        self.patch_embed, self.norm_final = step.patch_embed, step.norm_final
        self.norm_out, self.proj_out = step.norm_out, step.proj_out
        self.blocks = nn.ModuleList()
        for block in step.transformer_blocks:
            fused = FusedBlock(cast(Block, block))
            if float8:  # at once, so that no more than one block has both forms
                fused.quantise(operators)
            self.blocks.append(fused)
        self.face_norms = nn.ModuleList(cast(nn.ModuleDict, layer)["norm2"] for layer in step.perceiver_cross_attention)

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
        weight = cast(Tensor, self.patch_embed["proj"].weight)
        latents, tables, final_modulation, text, image_tokens, face_keys, face_values = (
            tensor.to(weight.dtype)
            for tensor in (
                latents, block_modulation, final_modulation, text_tokens, image_tokens, face_keys, face_values,
            )
        )  # fmt: skip
        frames, rows, columns = image_tokens.shape[1:4]
        video = (patchify(latents, weight[:, : self.config.out_channels]) + image_tokens).flatten(1, 3)
        cos, sin = rope_cos.flatten(0, 2).contiguous(), rope_sin.flatten(0, 2).contiguous()
        x = self._blocks(text, video, tables, face_keys, face_values, cos, sin)
        shift, scale = final_modulation.chunk(2)
        video = self.norm_out["norm"](self.norm_final(x[:, text.shape[1] :]))
        video = self.proj_out(modulate(video, shift, scale))
        patch = self.config.patch_size
        grid = video.reshape(-1, frames, rows, columns, self.config.out_channels, patch, patch)
        return (grid.permute(0, 1, 4, 2, 5, 3, 6).flatten(5, 6).flatten(3, 4).float(),)

    def _blocks(
        self, text: Tensor, video: Tensor, tables: Tensor, keys: Tensor, values: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """text [B, L, C], video [1, N, C], tables [layers, 2, 6, C] → [B, L + N, C]."""
        ops, blocks, length = self._ops, cast("list[FusedBlock]", self.blocks), text.shape[1]
        step = torch.zeros(1, dtype=torch.int32, device=video.device)
        mixed = self._first_attention(text, video, tables[0, 0], step, cos, sin)
        x = torch.cat((text, video.expand(len(text), -1, -1)), dim=1)
        for i, block in enumerate(blocks):
            residual = x, block.out(mixed.flatten(2)), tables[i, 0][None]
            table = tables[i, 1][None]
            x, normed = ops.gated_residual_norm(*residual, *block.affine(2), table, step, length, block.eps)
            residual = x, block.feed_forward(normed, ops), table
            layer, injects = divmod(i, self.config.cross_attn_interval)
            last = i + 1 == len(blocks)
            if last or injects == 0:
                x = ops.gated_residual(*residual, step, length)
            if injects == 0:
                norm, heads = self.face_norms[layer], self.config.cross_attn_num_heads
                x = ops.face_attention(x, *_affine(norm), keys[layer], values[layer], heads, length, _eps(norm))
            if last:
                break
            following, table = blocks[i + 1], tables[i + 1, 0][None]
            entering = *following.affine(1), table, step, length, following.eps
            if injects == 0:
                normed = ops.modulated_norm(x, *entering)
            else:
                x, normed = ops.gated_residual_norm(*residual, *entering)
            mixed = self._attention(*following.project(normed, cos, sin, ops))
        return x

    def _first_attention(
        self, text: Tensor, video: Tensor, table: Tensor, step: Tensor, cos: Tensor, sin: Tensor
    ) -> Tensor:
        """The first block's norm: the video is still the same in all branches."""
        ops, block = self._ops, cast(FusedBlock, self.blocks[0])

        def project(tokens: Tensor, length: int, cos: Tensor, sin: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            normed = ops.modulated_norm(tokens, *block.affine(1), table[None], step, length, block.eps)
            return block.project(normed, cos, sin, ops)

        parts = project(text, text.shape[1], cos[:0], sin[:0]), project(video, 0, cos, sin)
        mixed: Tensor = ops.shared_joint_attention(*parts)
        return mixed


def _affine(norm: nn.Module) -> tuple[Tensor, Tensor]:
    return cast(Tensor, norm.weight), cast(Tensor, norm.bias)


def _eps(norm: nn.Module) -> float:
    return cast(nn.LayerNorm, norm).eps
