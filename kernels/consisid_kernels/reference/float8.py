"""Linear layers of E4M3 numbers, and the quantisation of their inputs, with a scale for each row of both."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT8 = torch.float8_e4m3fn
FLOAT8_LARGEST = 448.0


def quantise_rows(x: Tensor, gelu: bool = False) -> tuple[Tensor, Tensor]:
    """x, or GELU(x) in its tanh form, in E4M3 with a scale for each row: its largest magnitude over 448.

    x [..., C] → E4M3 [..., C], float32 [..., 1]. GELU(x) is not rounded in between. A row with NaN or infinity is NaN.
    """
    wide = x if x.dtype == torch.float64 else x.float()
    wide = F.gelu(wide, approximate="tanh") if gelu else wide
    # A tensor, not a number: on CUDA, PyTorch multiplies by the reciprocal of a divisor that is a Python number.
    scale = wide.abs().amax(-1, keepdim=True).clamp(min=1e-12) / wide.new_full((), FLOAT8_LARGEST)
    return (wide / scale).clamp(-FLOAT8_LARGEST, FLOAT8_LARGEST).to(FLOAT8), scale.float()


def linear_float8(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """(x · x_scale)(W · weight_scale)ᵀ + b of E4M3 numbers, summed in float32 (in float64 if `dtype` is float64).

    x [..., C] with x_scale [..., 1], weight [out, C] with weight_scale [out], bias [out] → `dtype` [..., out].
    """
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    out = F.linear(x.to(wide), weight.to(wide)) * (x_scale.to(wide) * weight_scale.to(wide))
    return (out if bias is None else out + bias.to(wide)).to(dtype)
