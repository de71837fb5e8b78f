"""The tiers: what each saves beside the algebra of `exact`, and which steps of a run it computes.

Which steps are skipped is a pure function of the checkpoint's curve, the timesteps of a run and the tier's threshold:
the same for every request of that many steps, known before any work, and nothing of it passes between requests.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

STEPS, GUIDANCE = 50, 6.0
"""Of ConsisID's own pipeline."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One tier.

    Attributes:
        name: as in options and manifests.
        meaning: what it saves, for people.
        steps: where the request names none.
        guided: share of the steps, from the first, with guidance, where the request names no guidance.
        threshold: how far the clean latents may move, by the checkpoint's `Curve`, before a step is computed again; 0
            computes every step.
    """

    name: str
    meaning: str
    steps: int = STEPS
    guided: float = 1.0
    threshold: float = 0.0

    def guided_steps(self, steps: int) -> int:
        """How many of `steps` steps, from the first, have guidance where the request names none."""
        return math.ceil(self.guided * steps)


TIERS = {
    tier.name: tier
    for tier in (
        Tier("exact", "every step; every saving is algebra"),
        Tier("fp8", "every step; 8-bit linear layers"),
        Tier("fast", "skips steps in which the clean latents hardly move", threshold=0.1),
        Tier("draft", "half of the steps, more of them skipped, guidance in the first", 25, 0.6, 0.3),
    )
}
"""Name → tier."""


@dataclass(frozen=True, slots=True)
class Curve:
    """How far a checkpoint's clean latents have moved since pure noise, measured on its own runs.

    Attributes:
        timesteps: falling.
        change: at each, the sum of the relative L2 distances between the clean latents of consecutive steps; rises.
    """

    timesteps: tuple[int, ...]
    change: tuple[float, ...]

    @classmethod
    def from_json(cls, content: Any) -> Curve:
        """The inverse of `to_json`. Raises `ValueError` saying what is wrong."""
        wanted = (
            'an object of two lists of the same two or more numbers, "timesteps" falling and "change" rising from 0'
        )
        try:
            timesteps, change = ([*content[name]] for name in ("timesteps", "change"))
            fits = content.keys() == {"timesteps", "change"} and len(timesteps) == len(change) >= 2
            fits = fits and all(type(number) is int and number >= 0 for number in timesteps)
            fits = (
                fits
                and all(isinstance(number, int | float) and math.isfinite(number) for number in change)
                and change[0] == 0
            )
            fits = fits and all(a > b for a, b in pairwise(timesteps)) and all(a <= b for a, b in pairwise(change))
        except (TypeError, KeyError, AttributeError):
            fits = False
        if not fits:
            raise ValueError(f"expected {wanted}")
        return cls(tuple(timesteps), tuple(map(float, change)))

    def to_json(self) -> dict[str, list[int] | list[float]]:
        return {"timesteps": [*self.timesteps], "change": [*self.change]}

    def at(self, timestep: int) -> float:
        """The change since pure noise at a timestep, linear between the measured ones."""
        place = bisect_left(self.timesteps, -timestep, key=lambda known: -known)
        if place == 0:
            return self.change[0]
        if place == len(self.timesteps):
            return self.change[-1]
        before, after = self.timesteps[place - 1], self.timesteps[place]
        share = (before - timestep) / (before - after)
        return self.change[place - 1] + share * (self.change[place] - self.change[place - 1])


@dataclass(frozen=True, slots=True)
class TierSet:
    """The tiers that a bundle can run, and what decides their steps.

    Attributes:
        names: the first is taken where a request names none.
        curve: of the checkpoint; tiers that skip steps need one.
        timesteps: number of steps → their timesteps, falling.
    """

    names: tuple[str, ...] = ("exact",)
    curve: Curve | None = None
    timesteps: Callable[[int], Sequence[int]] = lambda count: range(count)[::-1]

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any], timesteps: Callable[[int], Sequence[int]]) -> TierSet:
        curve = manifest.get("curve")
        return cls(tuple(manifest["tiers"]), None if curve is None else Curve.from_json(curve), timesteps)

    def computed(self, tier: Tier, steps: int) -> tuple[bool, ...]:
        """For each of `steps` steps, whether it is computed."""
        if self.curve is None or not tier.threshold:
            return (True,) * steps
        return computed_steps(self.curve, self.timesteps(steps), tier.threshold)


def available(precision: str, curve: Curve | None) -> tuple[str, ...]:
    """The tiers that a bundle of this precision runs; those that skip steps need a curve."""
    own = "fp8" if precision == "fp8" else "exact"
    return own, *(name for name, tier in TIERS.items() if tier.threshold and curve is not None)


def computed_steps(curve: Curve, timesteps: Sequence[int], threshold: float) -> tuple[bool, ...]:
    """Whether each step is computed: the first, the last, and where the clean latents moved by more than `threshold`.

    The distance counts from the last step that was computed, whose clean latents the skipped ones keep.
    """
    computed, held = [], 0.0
    for i, timestep in enumerate(timesteps):
        moved = curve.at(timestep)
        needed = i in (0, len(timesteps) - 1) or moved - held > threshold
        held = moved if needed else held
        computed.append(needed)
    return tuple(computed)
