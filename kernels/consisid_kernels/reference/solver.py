"""Classifier-free guidance, a step of the solver, and the noise that it adds."""

from __future__ import annotations

import math

import torch
from torch import Tensor

_WORD = 0xFFFFFFFF
"""Mask of the low 32 bits."""


def guided_step(
    velocity: Tensor, latents: Tensor, previous: Tensor, draw: Tensor, coefficients: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """Classifier-free guidance and one step of the solver, in float32.

    velocity [B, …], the negative branch first if B = 2; latents, previous (x0 of the step before) and draw (standard
    normal) [1, …], all finite. coefficients float32 [T, 8] has for each step guidance, then `schedule.Step`'s signal,
    sigma, keep, pull, noise, current, previous; noise is zero for a solver without noise, previous for one of first
    order. step int32 [1] is an index into T. → next latents, x0.
    """
    row = coefficients.index_select(0, step).to(latents.dtype)
    guidance, signal, sigma, keep, pull, noise, current, before = row.unbind(1)
    velocity = velocity.to(latents.dtype)
    if velocity.shape[0] == 2:
        negative, positive = velocity.chunk(2)
        velocity = negative + guidance * (positive - negative)
    x0 = signal * latents - sigma * velocity
    return keep * latents - pull * (current * x0 - before * previous) + noise * draw, x0


def guided_step_counter(
    velocity: Tensor, latents: Tensor, previous: Tensor, seed: Tensor, coefficients: Tensor, step: Tensor
) -> tuple[Tensor, Tensor]:
    """`guided_step` with `counter_noise` as draw; seed int64 [1]."""
    draw = counter_noise(seed, step, latents.numel(), latents.dtype).reshape(latents.shape)
    return guided_step(velocity, latents, previous, draw, coefficients, step)


def counter_noise(seed: Tensor, step: Tensor, count: int, dtype: torch.dtype) -> Tensor:
    """`count` standard normal numbers, each a function of seed, step and its index.

    Number i is Box and Muller's cosine of the first two words of Philox4x32-10 (Salmon et al. 2011) with the seed as
    key and (i, step, 0, 0) as counter. Only the upper 24 bits of each word are used, which float32 represents exactly.
    """
    words = philox(torch.arange(count, device=seed.device), step.long(), seed)
    radius, angle = ((word >> 8).to(dtype) for word in words[:2])
    return torch.sqrt(-2 * torch.log((radius + 1) / 2**24)) * torch.cos(angle * (2 * math.pi / 2**24))


def philox(index: Tensor, step: Tensor, key: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Ten rounds of Philox4x32 on the counters (index, step, 0, 0); key int64. Words are int64 below 2³²."""
    low, high = key & _WORD, key >> 32 & _WORD
    zero = torch.zeros_like(index)
    words = index, step & _WORD, zero, zero
    for i in range(10):
        # An int64 product wraps at 2⁶⁴ and keeps both of its 32-bit halves.
        first, second = words[0] * 0xD2511F53, words[2] * 0xCD9E8D57
        words = (
            (second >> 32 & _WORD) ^ words[1] ^ (low + i * 0x9E3779B9 & _WORD),
            second & _WORD,
            (first >> 32 & _WORD) ^ words[3] ^ (high + i * 0xBB67AE85 & _WORD),
            first & _WORD,
        )
    return words
