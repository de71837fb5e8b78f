"""Emulates the sums of E4M3 products on tensor cores, from which bounds of errors on a GPU are derived."""

import torch
from torch import Tensor

FRACTION = 13
"""Bits after the leading one (DeepSeek-V3 report, section 3.3.2: Hopper adds the highest 14 bits of each product)."""
STEP = 32
"""Products that an instruction adds to the previous sum."""


def products(a: Tensor, b: Tensor, block: int) -> Tensor:
    """a [..., M, K] and b [..., N, K], E4M3 numbers of any dtype → a bᵀ [..., M, N], float32.

    An instruction aligns its 32 products and the previous sum to the largest of the 33, truncates each after FRACTION
    bits and adds them. The sum of every `block` of K starts from zero and is added to the others in float32.
    """
    shape = torch.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    out = torch.zeros(*shape, a.shape[-2], b.shape[-2], device=a.device)
    for columns in zip(a.float().split(block, -1), b.float().split(block, -1), strict=True):
        part = torch.zeros_like(out)
        for x, y in zip(*(c.split(STEP, -1) for c in columns), strict=True):
            terms = torch.cat((x[..., :, None, :] * y[..., None, :, :], part[..., None]), -1)
            exponent = torch.frexp(terms.abs().amax(-1, keepdim=True))[1] - 1 - FRACTION
            cut = torch.ldexp(terms, -exponent).trunc_()
            part = torch.ldexp(cut.sum(-1), exponent[..., 0])
        out += part
    return out
