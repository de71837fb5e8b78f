"""The operators of `reference`, computed by kernels.

`joint_attention` is the plain form; `joint_attention_form` says which one to use on a device.
"""

from __future__ import annotations

from consisid_kernels.attention.choice import joint_attention_form
from consisid_kernels.attention.face import face_attention
from consisid_kernels.attention.joint import joint_attention, partial_attention
from consisid_kernels.attention.merge import merge_attention, shared_joint_attention
from consisid_kernels.attention.qkv import qkv_epilogue
from consisid_kernels.layers.linear import linear_float8, linear_gelu
from consisid_kernels.layers.modulation import gated_residual, gated_residual_norm, modulated_norm
from consisid_kernels.layers.quantise import quantise_rows
from consisid_kernels.layers.vae import spatial_norm_silu

__all__ = [
    "face_attention",
    "gated_residual",
    "gated_residual_norm",
    "joint_attention",
    "joint_attention_form",
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
