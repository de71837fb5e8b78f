"""`scheduler/scheduler_config.json`, parsed and checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from consisid_runtime.errors import InvalidOption
from consisid_runtime.models.configs.entries import Entries

FILE = "scheduler/scheduler_config.json"

CLASSES = ("CogVideoXDPMScheduler", "CogVideoXDDIMScheduler")
_NOT_USED = ("clip_sample", "clip_sample_range", "sample_max_value")
"""diffusers' classes take these, and their steps do not read them."""


@dataclass(frozen=True, slots=True)
class SchedulerConfig:
    """The noise levels and timesteps of training, under diffusers' names.

    Attributes:
        prediction_type: what the network's output means: "epsilon", "sample" or "v_prediction".
        timestep_spacing: "leading", "linspace" or "trailing".
        beta_schedule: "linear" or "scaled_linear".
    """

    num_train_timesteps: int
    beta_start: float
    beta_end: float
    beta_schedule: str
    set_alpha_to_one: bool
    steps_offset: int
    prediction_type: str
    timestep_spacing: str
    rescale_betas_zero_snr: bool
    snr_shift_scale: float

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> SchedulerConfig:
        """An entry that is not there has diffusers' default.

        Raises `CheckpointInvalid` naming every entry that is wrong or unknown to this runtime.
        """
        at = Entries(FILE, config)
        at.unread(*_NOT_USED)
        at.choice("_class_name", None, (None, *CLASSES))
        at.choice("trained_betas", None, (None,))
        found = cls(
            num_train_timesteps=at.whole("num_train_timesteps", 1000, low=2, high=100_000),
            beta_start=at.positive("beta_start", 0.00085, 0.999),
            beta_end=at.positive("beta_end", 0.0120, 0.999),
            beta_schedule=at.choice("beta_schedule", "scaled_linear", ("linear", "scaled_linear")),
            set_alpha_to_one=at.flag("set_alpha_to_one", True),
            steps_offset=at.whole("steps_offset", 0, low=0, high=100_000),
            prediction_type=at.choice("prediction_type", "epsilon", ("epsilon", "sample", "v_prediction")),
            timestep_spacing=at.choice("timestep_spacing", "leading", ("leading", "linspace", "trailing")),
            rescale_betas_zero_snr=at.flag("rescale_betas_zero_snr", False),
            snr_shift_scale=at.positive("snr_shift_scale", 3.0),
        )
        leading = found.timestep_spacing == "leading"
        fits = not leading or found.steps_offset < found.num_train_timesteps
        below = f"below num_train_timesteps ({found.num_train_timesteps})"
        at.require("steps_offset", found.steps_offset, fits, below)
        at.done()
        return found

    def timesteps(self, count: int) -> list[int]:
        """The timesteps of `count` steps, falling. Raises `InvalidOption` for more than it was trained with."""
        trained, spacing = self.num_train_timesteps, self.timestep_spacing
        offset = self.steps_offset if spacing == "leading" else 0
        places: np.ndarray[Any, np.dtype[Any]]
        if spacing == "leading":
            places = (np.arange(count) * (trained // count) + offset)[::-1]
        elif spacing == "linspace":
            places = np.linspace(0, trained - 1, count)[::-1].round()
        else:
            # At 62 counts `arange` overshoots by rounding (docs/troubleshooting.md lists them). The reference then
            # takes one step more, at timestep −1: the table's last entry, pure noise, and the finished video is thrown
            # away.
            places = np.round(np.arange(trained, 0, -trained / count))[:count] - 1
        if count > trained or places[0] >= trained:
            raise InvalidOption(f"steps may be at most {trained - offset} with this checkpoint, got {count}")
        return [int(place) for place in places]
