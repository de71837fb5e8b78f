"""What requests demand of the device: within the operator's limits, and the seconds that their videos should take."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan
from consisid_runtime.stages.rates import Size, evaluations, foreseen, size_of, volume

_SIZES_KEPT = 64
_SURE = 0.5
"""Of what a video should take: less it will not."""
_FRESH = 600.0
"""Seconds for which a figure may refuse a request: a first video may have been slow."""


class _Seen(NamedTuple):
    """Seconds of the stages, of `denoise` those of one evaluation; and when they were learnt."""

    stages: Mapping[str, float]
    when: float


class Demand:
    """Of one door.

    Args:
        plan: yields what resolves options against the bundle; None where nothing does, nor is anything limited then.
    """

    def __init__(self, limits: Limits, plan: Callable[[], Callable[[Options], Plan] | None]) -> None:
        self._most = {"steps": limits.steps, "frames": limits.frames, "pixels": limits.pixels}
        self._plan = plan
        self._seen: OrderedDict[tuple[str, Size], _Seen] = OrderedDict()

    def plan(self, options: Options) -> Plan | None:
        """Raises what the bundle's own `plan` raises, and `InvalidOption` for what is beyond the operator's limits."""
        resolve = self._plan()
        if resolve is None:
            return None
        found = resolve(options)
        asked = {"steps": found.steps, "frames": found.frames, "pixels": found.height * found.width}
        for name, most in self._most.items():
            if most is not None and asked[name] > most:
                raise InvalidOption(f"this server's limit --max-{name} is {most}, the request asks for {asked[name]}")
        return found

    def stages(self, plan: Plan | None) -> dict[str, float] | None:
        """Seconds of each stage that is known: by the last video of the tier and size, else of the nearest size.

        None before the first. Of another tier where none of this one was made.
        """
        if plan is None:
            return None
        seen = {size: seen.stages for (tier, size), seen in self._seen.items() if tier == plan.tier}
        return foreseen(seen or {size: seen.stages for (_, size), seen in self._seen.items()}, plan)

    def seconds(self, plan: Plan | None) -> float | None:
        """That a video should take; None before the first."""
        stages = self.stages(plan)
        return None if stages is None else sum(stages.values())

    def at_least(self, plan: Plan | None) -> float:
        """Seconds below which the video will not be done; 0 where too little is known."""
        seconds = self.seconds(plan)
        if plan is None or seconds is None or time.monotonic() - self._nearest(plan).when > _FRESH:
            return 0.0
        return _SURE * seconds

    def learn(self, plan: Plan | None, took: Mapping[str, float]) -> None:
        """A video's stages took so many seconds; those that are missing were not computed, `denoise` was."""
        if plan is None or not (count := evaluations(plan)):
            return
        key = plan.tier, size_of(plan)
        before = self._seen[key].stages if key in self._seen else {}
        self._seen[key] = _Seen({**before, **took, "denoise": took["denoise"] / count}, time.monotonic())
        self._seen.move_to_end(key)
        while len(self._seen) > _SIZES_KEPT:
            self._seen.popitem(last=False)

    def forget(self) -> None:
        """What the videos took so far holds no longer."""
        self._seen.clear()

    def _nearest(self, plan: Plan) -> _Seen:
        wanted = volume(size_of(plan))

        def distance(item: tuple[tuple[str, Size], _Seen]) -> tuple[bool, int]:
            (tier, size), _ = item
            return tier != plan.tier, abs(volume(size) - wanted)

        return min(self._seen.items(), key=distance)[1]
