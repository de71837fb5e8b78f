# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Merges attention to two parts of the keys into attention to all of them; the first layer's attention uses it.

    out = o₁·share + o₂·(1 − share),  share = 1 / (1 + 2^(d₂ − d₁)),  d the base-2 logarithm of a part's denominator

Bound by memory.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.attention.joint import attend_to, check_inputs, empty_denominator
from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.variant import MATRIX, Variant


# merged_stride may be specialised: it is a multiple of 16 because head sizes are.
@triton.jit(do_not_specialize=["tokens", "heads"])
def _merge(
    merged_ptr, out_ptr, denominator_ptr, other_ptr, other_denominator_ptr, tokens, heads, merged_stride,
    D: tl.constexpr, ROWS: tl.constexpr, OUT_SHARED: tl.constexpr, OTHER_SHARED: tl.constexpr,
):  # fmt: skip
    """A row is one head of one token."""
    branch = tl.program_id(1).to(tl.int64)
    row = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    inside = row < tokens * heads
    denominator_offsets = (row % heads) * tokens + row // heads
    offsets = row.to(tl.int64)[:, None] * D + tl.arange(0, D)[None, :]
    rows = tokens.to(tl.int64) * heads
    out_start = 0 if OUT_SHARED else branch * rows
    other_start = 0 if OTHER_SHARED else branch * rows
    difference = tl.load(other_denominator_ptr + other_start + denominator_offsets, mask=inside) - tl.load(
        denominator_ptr + out_start + denominator_offsets, mask=inside
    )
    share = (1 / (1 + tl.exp2(difference)))[:, None]
    out = tl.load(out_ptr + out_start * D + offsets, mask=inside[:, None]).to(tl.float32)
    other = tl.load(other_ptr + other_start * D + offsets, mask=inside[:, None]).to(tl.float32)
    merged = (out * share + other * (1 - share)).to(merged_ptr.dtype.element_ty)
    tl.store(merged_ptr + branch * merged_stride + offsets, merged, mask=inside[:, None])


def merge_attention(out: Tensor, denominator: Tensor, other: Tensor, other_denominator: Tensor) -> Tensor:
    """`reference.merge_attention` of results of `partial_attention`; the result has their memory layout.

    Raises:
        ValueError: an argument's shape, dtype, device or layout is not that of `partial_attention`.
    """
    one, two = (tensor.transpose(1, 2) if tensor.dim() == 4 else tensor for tensor in (out, other))
    require("out, with tokens before heads,", one, (None, None, None, None), DTYPES, one.device)
    branches, tokens, heads, size = one.shape
    require("denominator", denominator, (branches, heads, tokens), (torch.float32,), one.device)
    require("other, with tokens before heads,", two, (None, tokens, heads, size), (one.dtype,), one.device)
    others = two.shape[0]
    require("other_denominator", other_denominator, (others, heads, tokens), (torch.float32,), one.device)
    if branches != others and 1 not in (branches, others):
        raise ValueError(f"out has {branches} branches, other {others}; wanted as many, or one for all")
    merged = torch.empty(max(branches, others), tokens, heads, size, dtype=out.dtype, device=out.device)
    _merge_into(merged, one, denominator, two, other_denominator)
    return merged.transpose(1, 2)


def _merge_into(merged: Tensor, out: Tensor, denominator: Tensor, other: Tensor, other_denominator: Tensor) -> None:
    """Writes into `merged` [B, N, H, D], which may be a slice of a tensor's tokens; out and other are [B, N, H, D]."""
    branches, tokens, heads, size = merged.shape
    config = tile("merge_attention", DTYPES[merged.dtype], architecture(merged.device))
    shared = {"OUT_SHARED": out.shape[0] < branches, "OTHER_SHARED": other.shape[0] < branches}
    if merged.numel():
        with current_device(merged.device):
            _merge[triton.cdiv(tokens * heads, config["rows"]), branches](
                merged, out, denominator, other, other_denominator, tokens, heads, merged.stride(0),
                D=size, ROWS=config["rows"], **shared, num_warps=config["num_warps"],
            )  # fmt: skip


def shared_joint_attention(text: tuple[Tensor, Tensor, Tensor], video: tuple[Tensor, Tensor, Tensor]) -> Tensor:
    """`reference.shared_joint_attention`.

    Raises:
        ValueError: as `joint_attention`, except that text may be empty; text and video differ in heads, channels, dtype
            or device.
    """
    (text_q, text_k, text_v), (video_q, video_k, video_v) = text, video
    check_inputs(*text)
    branches, heads, length, size = text_q.shape
    require("video's q", video_q, (1, heads, None, size), (text_q.dtype,), text_q.device)
    joined = torch.empty(branches, length + video_q.shape[2], heads, size, dtype=text_q.dtype, device=text_q.device)
    for q, merged in ((text_q, joined[:, :length]), (video_q, joined[:, length:])):
        if not text_k.shape[2]:
            merged.copy_(attend_to(q, video_k, video_v))
            continue
        to_video, to_text = empty_denominator(q, video_k), empty_denominator(q, text_k)
        parts = attend_to(q, video_k, video_v, to_video), attend_to(q, text_k, text_v, to_text)
        _merge_into(merged, parts[0], to_video, parts[1], to_text)
    return joined


def _merge_variant(dtype: str, number: int) -> Variant:
    config = tile("merge_attention", dtype, number)
    pointers = ("merged_ptr", "out_ptr", "denominator_ptr", "other_ptr", "other_denominator_ptr")
    constants = {"D": 64, "ROWS": config["rows"], "OUT_SHARED": True, "OTHER_SHARED": False}
    types = dict.fromkeys(pointers, f"*{dtype}") | dict.fromkeys(("tokens", "heads", "merged_stride"), "i32")
    types |= {"denominator_ptr": "*fp32", "other_denominator_ptr": "*fp32"}
    return Variant(
        f"merge_attention/{dtype}-d64", _merge,
        {name: types.get(name, "constexpr") for name in _merge.arg_names}, constants, (number,),
        warps=config["num_warps"], aligned=(*pointers, "merged_stride"),
    )  # fmt: skip


VARIANTS = [_merge_variant(dtype, number) for dtype in ("bf16", "fp16") for number in MATRIX]
