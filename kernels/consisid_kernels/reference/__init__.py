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
from consisid_kernels.reference.float8 import (
    FLOAT8,
    FLOAT8_LARGEST,
    linear_float8,
    quantise_rows,
)
from consisid_kernels.reference.layers import (
    gated_residual,
    gated_residual_norm,
    linear_gelu,
    modulated_norm,
    spatial_norm_silu,
)

__all__ = [
    "FLOAT8",
    "FLOAT8_LARGEST",
    "face_attention",
    "gated_residual",
    "gated_residual_norm",
    "joint_attention",
    "linear_float8",
    "linear_gelu",
    "merge_attention",
    "modulated_norm",
    "partial_attention",
    "qkv_epilogue",
    "quantise_rows",
    "shared_joint_attention",
    "spatial_norm_silu",
]
