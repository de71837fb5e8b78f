"""How long a request's stages take, from those of before."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Mapping

from consisid_runtime.plan import Plan

_SIZES_KEPT = 64
Size = tuple[int, int, int]
"""Frames, height, width."""

_ALWAYS_ALIKE = ("face", "text")
"""Stages that take as long whatever the video's size."""


def size_of(plan: Plan) -> Size:
    """Of a request's video."""
    return plan.frames, plan.height, plan.width


def volume(size: Size) -> int:
    """Pixels of a whole video."""
    return size[0] * size[1] * size[2]


def evaluations(plan: Plan, first: int = 0, last: int | None = None) -> int:
    """How often the network runs in steps `first` to `last`: not in skipped steps, and twice where guided."""
    steps = range(first, plan.steps if last is None else last)
    return sum((2 if i < plan.guided_steps else 1) for i in steps if plan.computed[i])


def foreseen(seen: Mapping[Size, Mapping[str, float]], plan: Plan) -> dict[str, float] | None:
    """Seconds of each stage that is known, by the nearest size of each; None before one evaluation was seen.

    Args:
        seen: seconds of the stages by size; of `denoise` those of one evaluation.
    """
    wanted, found = size_of(plan), dict[str, float]()
    # The nearest last, so that its stages count.
    for size in sorted(seen, key=lambda size: -abs(volume(size) - volume(wanted))):
        growth = dict.fromkeys(_ALWAYS_ALIKE, 1.0) | {"encode": wanted[1] * wanted[2] / (size[1] * size[2])}
        larger = volume(wanted) / volume(size)
        found |= {stage: seconds * growth.get(stage, larger) for stage, seconds in seen[size].items()}
    if "denoise" not in found:
        return None
    return found | {"denoise": found["denoise"] * evaluations(plan)}


class Rates:
    """Seconds of each stage, and of one evaluation of the network, as last seen, for the latest 64 sizes of videos.

    A first request of a size leaves out the stages that none has shown yet.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[Size, dict[str, float]] = OrderedDict()

    def learn(self, plan: Plan, stage: str, seconds: float) -> None:
        """A stage took so long; `denoise` for one evaluation."""
        size = size_of(plan)
        self._seen.setdefault(size, {})[stage] = seconds
        self._seen.move_to_end(size)
        while len(self._seen) > _SIZES_KEPT:
            self._seen.popitem(last=False)

    def foreseen(self, plan: Plan) -> dict[str, float] | None:
        """Seconds of each stage of a request, also of a size that was not seen yet: see `foreseen`."""
        return foreseen(self._seen, plan)

    def steps(self, plan: Plan, first: int, seconds: float) -> int:
        """How many steps from `first` take so long, at least one; 1 while one evaluation was not seen yet."""
        evaluation = self._seen.get(size_of(plan), {}).get("denoise")
        if evaluation is None:
            return 1
        count, took = 1, evaluation * evaluations(plan, first, first + 1)
        while first + count < plan.steps:
            took += evaluation * evaluations(plan, first + count, first + count + 1)
            if took > seconds:
                break
            count += 1
        return count

    def left(self, plan: Plan, stages: Collection[str], step: int = 0) -> float | None:
        """Seconds of these stages, of `denoise` from `step`; None while one evaluation was not seen yet."""
        seen = self._seen.get(size_of(plan), {})
        if "denoise" not in stages:
            return sum(seen.get(stage, 0.0) for stage in stages)
        if "denoise" not in seen:
            return None
        others = sum(seen.get(stage, 0.0) for stage in stages if stage != "denoise")
        return others + seen["denoise"] * evaluations(plan, step)
