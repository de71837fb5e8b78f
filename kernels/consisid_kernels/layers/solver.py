# mypy: disable-error-code="untyped-decorator,no-untyped-def,no-untyped-call"
"""Classifier-free guidance (Ho & Salimans 2022) and a step of the solver in one pass over the latents.

    v  = v₋ + guidance (v₊ − v₋)
    x0 = signal·x − sigma·v
    x' = keep·x − pull (current·x0 − previous·x0') + noise·z

All in float32, whatever the network's dtype. z is read, or drawn by number: Philox with the element's index and the
step as its counter, so that neither the launch nor what ran before changes it. Bound by memory, and by the launch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from consisid_kernels.launch import DTYPES, architecture, current_device, require, tile
from consisid_kernels.variant import MATRIX, Variant

_TURN = tl.constexpr(2 * math.pi / 2**24)


@triton.jit
def _cosine(turn):
    """cos(2π·turn/2²⁴) for 0 ≤ turn < 2²⁴, by Taylor's series within an eighth of a turn, where float32 sees no more.

    The compiler's own cosine keeps a table for huge angles on the stack.
    """
    quarter = (turn + (1 << 21)) >> 22
    angle = (turn - (quarter << 22)).to(tl.float32) * _TURN
    square = angle * angle
    cosine = 1.0 - square * (1 / 2 - square * (1 / 24 - square * (1 / 720 - square * (1 / 40320))))
    sine = angle * (1.0 - square * (1 / 6 - square * (1 / 120 - square * (1 / 5040 - square * (1 / 362880)))))
    size = tl.where(quarter % 2 == 0, cosine, sine)
    return tl.where((quarter == 1) | (quarter == 2), -size, size)


@triton.jit
def _normal(seed, step, index):
    """`reference.counter_noise` of some indices."""
    first, second, _, _ = tl.philox(seed, index, step + index * 0, index * 0, index * 0)
    radius = ((first >> 8).to(tl.int32) + 1).to(tl.float32) * (1 / 2**24)
    return tl.sqrt(-2.0 * tl.log(radius)) * _cosine((second >> 8).to(tl.int32))


@triton.jit
def _guided_step(
    next_latents, x0, velocity, latents, previous, draw, seed, coefficients, step, elements,
    GUIDED: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    valid = index < elements
    step_index = tl.load(step)
    row = coefficients + step_index * 8
    x = tl.load(latents + index, mask=valid)
    v = tl.load(velocity + index, mask=valid).to(tl.float32)
    if GUIDED:
        v += tl.load(row) * (tl.load(velocity + elements + index, mask=valid).to(tl.float32) - v)
    denoised = tl.load(row + 1) * x - tl.load(row + 2) * v
    tl.store(x0 + index, denoised, mask=valid)
    target = tl.load(row + 6) * denoised - tl.load(row + 7) * tl.load(previous + index, mask=valid)
    z = _normal(tl.load(seed), step_index, index) if draw is None else tl.load(draw + index, mask=valid)
    tl.store(next_latents + index, tl.load(row + 3) * x - tl.load(row + 4) * target + tl.load(row + 5) * z, mask=valid)


def guided_step(
    velocity: Tensor, latents: Tensor, previous: Tensor, draw: Tensor, coefficients: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """`reference.guided_step`; velocity of any supported dtype, the rest float32.

    Raises:
        ValueError: an argument has another shape, dtype or device than the specification says, or is not contiguous.
    """
    return _launch(velocity, latents, previous, draw, None, coefficients, step)


def guided_step_counter(
    velocity: Tensor, latents: Tensor, previous: Tensor, seed: Tensor, coefficients: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """`reference.guided_step_counter`; velocity of any supported dtype.

    Raises:
        ValueError: as `guided_step`.
    """
    return _launch(velocity, latents, previous, None, seed, coefficients, step)


def _launch(
    velocity: Tensor,
    latents: Tensor,
    previous: Tensor,
    draw: Tensor | None,
    seed: Tensor | None,
    coefficients: Tensor,
    step: Tensor,
) -> tuple[Tensor, Tensor]:
    device, shape = latents.device, latents.shape
    require("latents", latents, (1, *shape[1:]), (torch.float32,), device)
    require("previous", previous, shape, (torch.float32,), device)
    if draw is not None:
        require("draw", draw, shape, (torch.float32,), device)
    if seed is not None:
        require("seed", seed, (1,), (torch.int64,), device)
    branches = velocity.shape[0] if velocity.dim() and velocity.shape[0] == 2 else 1
    require("velocity", velocity, (branches, *shape[1:]), DTYPES, device)
    require("coefficients", coefficients, (None, 8), (torch.float32,), device)
    require("step", step, (1,), (torch.int32,), device)
    elements = latents.numel()
    if elements >= 2**30:
        raise ValueError(f"latents have {elements} elements; wanted fewer than 2³⁰")
    next_latents, x0 = torch.empty_like(latents), torch.empty_like(latents)
    config = tile("guided_step", DTYPES[velocity.dtype], architecture(device))
    pointers = next_latents, x0, velocity, latents, previous, draw, seed, coefficients, step
    constants = {"GUIDED": branches == 2, "BLOCK": config["block"]}
    if elements:
        with current_device(device):
            grid = (triton.cdiv(elements, config["block"]),)
            _guided_step[grid](*pointers, elements, **constants, num_warps=config["num_warps"])
    return next_latents, x0


def _variant(name: str, absent: str, dtype: str, architecture: int) -> Variant:
    config = tile("guided_step", dtype, architecture)
    constants: dict[str, Any] = {"GUIDED": True, "BLOCK": config["block"], absent: None}
    types = {"velocity": f"*{dtype}", "seed": "*i64", "step": "*i32", "elements": "i32"}
    signature = {argument: types.get(argument, "*fp32") for argument in _guided_step.arg_names}
    aligned = tuple(name for name in signature if name not in constants)
    return Variant(
        f"{name}/{dtype}", _guided_step, signature | dict.fromkeys(constants, "constexpr"), constants, (architecture,),
        warps=config["num_warps"], aligned=aligned,
    )  # fmt: skip


VARIANTS = [
    _variant(name, absent, dtype, number)
    for name, absent in (("guided_step", "seed"), ("guided_step_counter", "draw"))
    for dtype in DTYPES.values()
    for number in MATRIX
]
