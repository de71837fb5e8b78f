"""The solvers CogVideoX was released with, as tables of coefficients.

One step of either is

    x0      = the clean latents that the network's output and the latents imply
    target  = x0, or current·x0 − previous·x0 of the step before        (second order)
    latents = keep·latents − pull·target + noise·draw

A skipped step keeps the x0 of the one before. With the same x0, steps of either solver compose to one longer step, so
that a run with skipped steps is one of fewer, uneven steps.

"dpm" is DPM-Solver++(2M) SDE (Lu et al. 2022, diffusers' `CogVideoXDPMScheduler`), "ddim" is DDIM (Song et al. 2021,
`CogVideoXDDIMScheduler`), on the SNR-shifted schedule with zero terminal SNR (Lin et al. 2024).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from consisid_runtime.models.configs.scheduler import SchedulerConfig


@dataclass(frozen=True, slots=True)
class Step:
    """One step's numbers.

    Attributes:
        timestep: the network's input.
        signal, sigma: √ᾱ and √(1 − ᾱ) at this timestep.
        keep, pull, noise: the weights of latents, target and draw.
        current, previous: the weights of this x0 and the one before in a second-order target.
        second_order: whether the target uses the x0 before.
        draws: how often the reference asks the generator for noise; it uses the last.
    """

    timestep: int
    signal: float
    sigma: float
    keep: float
    pull: float
    noise: float = 0.0
    current: float = 1.0
    previous: float = 0.0
    second_order: bool = False
    draws: int = 0


@dataclass(frozen=True, slots=True)
class Schedule:
    """The steps of one run, and what the network's output means ("epsilon", "sample" or "v_prediction")."""

    prediction: str
    steps: tuple[Step, ...]

    @classmethod
    def from_config(cls, config: Mapping[str, Any], solver: str, count: int) -> Schedule:
        """`count` steps of `solver` ("dpm" or "ddim") on the noise levels of a `scheduler_config.json`.

        Raises:
            CheckpointInvalid: the file asks for something this implementation does not do.
            InvalidOption: more steps than the checkpoint was trained with.
        """
        trained = SchedulerConfig.from_dict(config)
        alphas = _alphas(trained)
        final = torch.ones_like(alphas[0]) if trained.set_alpha_to_one else alphas[0]
        timesteps = trained.timesteps(count)
        stride = len(alphas) // count
        steps = []
        for i, timestep in enumerate(timesteps):
            # The level a step goes to lies a stride below, which is not always the next timestep.
            after = timestep - stride
            level, goal = alphas[timestep], alphas[after] if after >= 0 else final
            before = alphas[timesteps[i - 1]] if i and after >= 0 else None
            steps.append(_dpm(timestep, level, goal, before) if solver == "dpm" else _ddim(timestep, level, goal))
        return cls(prediction=trained.prediction_type, steps=tuple(steps))

    @property
    def timesteps(self) -> Tensor:
        """int64 [steps], falling."""
        return torch.tensor([step.timestep for step in self.steps], dtype=torch.int64)

    def advance(
        self, index: int, output: Tensor | None, latents: Tensor, previous: Tensor | None, draw: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Apply step `index`; pure. All tensors float32 of one shape.

        Args:
            output: what the network returned for `latents`, after guidance; None where the step is skipped.
            previous: x0 of the step before; needed where the step is skipped or of second order.
            draw: standard normal noise; needed where the step draws.

        Returns:
            The next latents, and x0.
        """
        step = self.steps[index]
        if output is None:
            if previous is None:
                raise ValueError(f"step {index} is skipped: it needs x0 of the step before")
            x0 = target = previous
        else:
            x0 = target = self._clean(step, output, latents)
            if step.second_order:
                if previous is None:
                    raise ValueError(f"step {index} is of second order: it needs x0 of the step before")
                target = step.current * x0 - step.previous * previous
        moved = step.keep * latents - step.pull * target
        if step.draws:
            if draw is None:
                raise ValueError(f"step {index} adds noise: it needs a draw")
            moved = moved + step.noise * draw
        return moved, x0

    def _clean(self, step: Step, output: Tensor, latents: Tensor) -> Tensor:
        """The clean latents that the network's output implies."""
        if self.prediction == "v_prediction":
            return step.signal * latents - step.sigma * output
        if self.prediction == "epsilon":
            return (latents - step.sigma * output) / step.signal
        return output


def _dpm(timestep: int, level: Tensor, goal: Tensor, before: Tensor | None) -> Step:
    def log_snr(alpha: Tensor) -> Tensor:
        return ((alpha / (1 - alpha)) ** 0.5).log()

    here = log_snr(level)
    h = log_snr(goal) - here
    current, previous = 1.0, 0.0
    if before is not None:
        r = (here - log_snr(before)) / h
        current, previous = (1 + 1 / (2 * r)).item(), (1 / (2 * r)).item()
    return Step(
        timestep=timestep,
        signal=(level**0.5).item(),
        sigma=((1 - level) ** 0.5).item(),
        keep=(((1 - goal) / (1 - level)) ** 0.5 * (-h).exp()).item(),
        pull=((-2 * h).expm1() * goal**0.5).item(),
        noise=((1 - goal) ** 0.5 * (1 - (-2 * h).exp()) ** 0.5).item(),
        current=current,
        previous=previous,
        second_order=before is not None,
        draws=1 if before is None else 2,
    )


def _ddim(timestep: int, level: Tensor, goal: Tensor) -> Step:
    keep = ((1 - goal) / (1 - level)) ** 0.5
    return Step(
        timestep=timestep,
        signal=(level**0.5).item(),
        sigma=((1 - level) ** 0.5).item(),
        keep=keep.item(),
        pull=-(goal**0.5 - level**0.5 * keep).item(),
    )


def _alphas(config: SchedulerConfig) -> Tensor:
    """ᾱ of every training timestep, in the reference's precision: float64 for "scaled_linear", else float32."""
    first, last, count = config.beta_start, config.beta_end, config.num_train_timesteps
    if config.beta_schedule == "scaled_linear":
        betas = torch.linspace(first**0.5, last**0.5, count, dtype=torch.float64) ** 2
    else:
        betas = torch.linspace(first, last, count, dtype=torch.float32)
    alphas: Tensor = torch.cumprod(1.0 - betas, dim=0)
    shift = config.snr_shift_scale
    alphas = alphas / (shift + (1 - shift) * alphas)
    if config.rescale_betas_zero_snr:
        root = alphas.sqrt()
        alphas = ((root - root[-1]) * (root[0] / (root[0] - root[-1]))) ** 2
    return alphas
