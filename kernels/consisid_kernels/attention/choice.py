"""Chooses the form of joint attention on a device: Hopper's only where a trial there has shown that it is right.

Gluon has no interpreter, and what depends on the hardware (asynchronous copies and products, barriers) shows on a GPU
alone. The trial sees wrong results and whatever raises; a kernel that never ends would hang it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from consisid_kernels import reference
from consisid_kernels.attention import joint, joint_hopper
from consisid_kernels.forms import form
from consisid_kernels.launch import DTYPES, architecture

TOKENS = 813
"""Six blocks of 128 keys and a part of one, so that the ring of buffers is used again, and six programs of 128 queries
and a part of one."""
RISE = 130
"""log₂ of the largest weight of one row. Its first block's maximum is far below: the sum outgrows the room of 2^100,
so that the program starts again."""
OWN_ERROR_FACTOR = 2
"""The largest accepted error, in units of the plain form's on the same tensors."""


@dataclass(frozen=True, slots=True)
class AttentionForm:
    """Joint attention as it is computed on one device, for one dtype and size of heads.

    Attributes:
        name: "hopper" or "plain".
        compute: as `reference.joint_attention`.
        problem: why it is not the form that `forms` names, for people; "" where it is.
    """

    name: str
    compute: Callable[[Tensor, Tensor, Tensor], Tensor]
    problem: str = ""


@cache
def joint_attention_form(device: torch.device, dtype: torch.dtype, size: int) -> AttentionForm:
    """The form that `forms` names for heads of `size` channels; the plain one where that does not pass its trial.

    The trial is made once for these arguments in a process. It waits for the device: call this before anything is
    captured in a CUDA graph.
    """
    plain = AttentionForm("plain", joint.joint_attention)
    if architecture(device) != joint_hopper.ARCHITECTURE or size not in joint_hopper.SIZES:
        return plain
    if form("joint_attention", f"{DTYPES[dtype]}-d{size}", joint_hopper.ARCHITECTURE) == plain.name:
        return plain
    compute = joint_hopper.joint_attention
    problem = trial(compute, trial_inputs(device, dtype, size))
    return replace(plain, problem=problem) if problem else AttentionForm("hopper", compute)


def trial(compute: Callable[[Tensor, Tensor, Tensor], Tensor], tensors: tuple[Tensor, Tensor, Tensor]) -> str:
    """What is wrong with `compute` on these tensors: what it raises, or too large an error; "" where nothing is."""
    try:
        found = compute(*tensors)
        exact = reference.joint_attention(*(tensor.double() for tensor in tensors))
        error, own = (_distance(each, exact) for each in (found, joint.joint_attention(*tensors)))
        # NaN is not at most the limit.
        if bool(error <= OWN_ERROR_FACTOR * own):
            return ""
        return f"its relative L2 error is {float(error):.1e} where the plain form's is {float(own):.1e}"
    except Exception as raised:  # Triton's compiler, its launcher and CUDA raise what they like
        return f"it raised {type(raised).__name__}: {(str(raised).splitlines() or [''])[0]}"


def trial_inputs(device: torch.device, dtype: torch.dtype, size: int) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v [2, 2, TOKENS, size], the same for each call; one row's sum outgrows its room."""
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, 2, TOKENS, size, generator=generator) for _ in range(3))
    q[:, :, 5], k[:, :, 0] = 4, RISE / (4 * size**0.5 * math.log2(math.e))
    return q.to(device, dtype), k.to(device, dtype), v.to(device, dtype)


def _distance(found: Tensor, exact: Tensor) -> Tensor:
    distance: Tensor = (found.double() - exact).norm() / exact.norm()
    return distance
