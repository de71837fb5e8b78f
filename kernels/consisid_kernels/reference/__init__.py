"""The specification: what every kernel computes, in plain PyTorch, by the same names and arguments as `ops`.

B guidance branches, H heads, D channels of a head, N tokens (text first, then video), L text tokens, C = H·D channels.
Functions compute in the dtype of their inputs. Errors of kernels are measured against their results in float64. Tests
compare them with the networks. Imports no Triton.
"""

from __future__ import annotations

from consisid_kernels.reference.attention import (
    face_attention,
    joint_attention,
    merge_attention,
    partial_attention,
    qkv_epilogue,
    shared_joint_attention,
)
from consisid_kernels.reference.eight_bit import (
    FLOAT8,
    FLOAT8_LARGEST,
    INT8_LARGEST,
    joint_attention_8bit,
    qkv_epilogue_8bit,
    qkv_statistics,
    quantise_channels,
    quantise_tokens,
)
from consisid_kernels.reference.layers import (
    gated_residual,
    gated_residual_norm,
    linear_float8,
    linear_gelu,
    linear_gelu_float8,
    modulated_norm,
    spatial_norm_silu,
)

__all__ = [
    "FLOAT8",
    "FLOAT8_LARGEST",
    "INT8_LARGEST",
    "face_attention",
    "gated_residual",
    "gated_residual_norm",
    "joint_attention",
    "joint_attention_8bit",
    "linear_float8",
    "linear_gelu",
    "linear_gelu_float8",
    "merge_attention",
    "modulated_norm",
    "partial_attention",
    "qkv_epilogue",
    "qkv_epilogue_8bit",
    "qkv_statistics",
    "quantise_channels",
    "quantise_tokens",
    "shared_joint_attention",
    "spatial_norm_silu",
]
