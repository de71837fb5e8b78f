"""The operators of `reference`, computed by kernels.

`joint_attention` is the plain form; `joint_attention_form` says which one to use on a device.
"""

from __future__ import annotations

from consisid_kernels.attention.choice import joint_attention_form
from consisid_kernels.attention.face import face_attention
from consisid_kernels.attention.joint import joint_attention, partial_attention
from consisid_kernels.attention.joint_8bit import joint_attention_8bit
from consisid_kernels.attention.merge import merge_attention, shared_joint_attention
from consisid_kernels.attention.qkv import qkv_epilogue
from consisid_kernels.attention.qkv_8bit import qkv_epilogue_8bit
from consisid_kernels.attention.qkv_statistics import qkv_statistics
from consisid_kernels.attention.quantise import quantise_channels, quantise_tokens
from consisid_kernels.layers.ffn import linear_float8, linear_gelu_float8
from consisid_kernels.layers.linear import linear_gelu
from consisid_kernels.layers.modulation import gated_residual, gated_residual_norm, modulated_norm
from consisid_kernels.layers.solver import guided_step, guided_step_counter
from consisid_kernels.layers.vae import spatial_norm_silu

__all__ = [
    "face_attention",
    "gated_residual",
    "gated_residual_norm",
    "guided_step",
    "guided_step_counter",
    "joint_attention",
    "joint_attention_8bit",
    "joint_attention_form",
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
