# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Variants of joint and face attention for TensorRT plugins, with arguments in its order and floats as constants."""

from __future__ import annotations

import triton
import triton.language as tl

from consisid_kernels.attention.face import _constants, _face_attention
from consisid_kernels.attention.joint import VARIANTS as ATTENTION
from consisid_kernels.launch import tile
from consisid_kernels.variant import MATRIX, Variant

DTYPES = ("fp16", "bf16")
HEAD_SIZES = (64, 128)
_JOINT = {(variant.name, number): variant for variant in ATTENTION for number in variant.architectures}


@triton.jit(do_not_specialize=["tokens"])
def _face_attention_plugin(
    x, weight, bias, keys, values, tokens, out,
    EPS: tl.constexpr, CHANNELS: tl.constexpr, SLOTS: tl.constexpr, HEAD_SLOTS: tl.constexpr, BLOCK_S: tl.constexpr,
    BLOCK_M: tl.constexpr, BLOCK_C: tl.constexpr, BLOCK_K: tl.constexpr, BLOCK_N: tl.constexpr, STAGES: tl.constexpr,
):  # fmt: skip
    """`face_attention` without text tokens."""
    _face_attention(
        out, x, weight, bias, keys, values, tokens, 0, EPS,
        CHANNELS, SLOTS, HEAD_SLOTS, BLOCK_S, BLOCK_M, BLOCK_C, BLOCK_K, BLOCK_N, STAGES,
    )  # fmt: skip


def joint_attention(dtype: str, size: int, architecture: int) -> Variant:
    """The variant of `joint.joint_attention` for "fp16" or "bf16" heads of 64 or 128 channels.

    Arguments: q, k, v, int32 query tokens, key tokens and heads, out. A block computes BLOCK_M queries along x and a
    head of a branch along y. Raises KeyError for another dtype, size or architecture.
    """
    return _JOINT[f"joint_attention/{dtype}-d{size}", architecture]


def face_attention(dtype: str, channels: int, slots: int, heads: int, eps: float, architecture: int) -> Variant:
    """The variant of `face.face_attention` for tokens that are all video.

    Arguments: x, weight, bias, keys, values, int32 tokens, out. A block computes BLOCK_M tokens along x and a branch
    along y. Raises KeyError for another dtype.
    """
    config = tile("face_attention", dtype, architecture)
    constants = {"EPS": eps} | _constants(channels, slots, heads, config)
    pointers = ("x", "weight", "bias", "keys", "values", "out")
    types = dict.fromkeys(pointers, f"*{dtype}") | {"tokens": "i32"}
    return Variant(
        f"face_attention_plugin/{dtype}-c{channels}", _face_attention_plugin,
        {name: types.get(name, "constexpr") for name in _face_attention_plugin.arg_names}, constants, (architecture,),
        warps=config["num_warps"], aligned=pointers, matrix=True,
    )  # fmt: skip


VARIANTS = [face_attention(dtype, 3072, 512, 16, 1e-5, number) for dtype in DTYPES for number in MATRIX]
