"""What requests demand of the device: within the operator's limits, and the seconds that their videos should take."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan
from consisid_runtime.stages.rates import evaluations

_SIZES_KEPT = 64
_SURE = 0.5
"""Of what a video should take: less it will not."""
_FRESH = 600.0
"""Seconds for which a figure may refuse a request: a first video may have been slow."""

_Size = tuple[str, int, int, int]
"""Tier, frames, height, width."""


class _Seen(NamedTuple):
    rate: float
    others: float
    when: float


class Demand:
    """Of one door.

    Args:
        plan: yields what resolves options against the bundle; None where nothing does, nor is anything limited then.
    """

    def __init__(self, limits: Limits, plan: Callable[[], Callable[[Options], Plan] | None]) -> None:
        self._most = {"steps": limits.steps, "frames": limits.frames, "pixels": limits.pixels}
        self._plan = plan
        self._seen: OrderedDict[_Size, _Seen] = OrderedDict()

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

    def seconds(self, plan: Plan | None) -> float | None:
        """That a video should take: by the last of its size, else of the nearest size; None before the first."""
        if plan is None or not self._seen:
            return None
        size, seen = self._nearest(plan)
        return (seen.rate * evaluations(plan) + seen.others) * _volume(_size(plan)) / _volume(size)

    def at_least(self, plan: Plan | None) -> float:
        """Seconds below which the video will not be done; 0 where too little is known."""
        seconds = self.seconds(plan)
        if plan is None or seconds is None or time.monotonic() - self._nearest(plan)[1].when > _FRESH:
            return 0.0
        return _SURE * seconds

    def learn(self, plan: Plan | None, denoise: float, others: float) -> None:
        """A video took so many seconds on the device, in `denoise` and in the other stages."""
        if plan is None or not (count := evaluations(plan)):
            return
        size = _size(plan)
        self._seen[size] = _Seen(denoise / count, others, time.monotonic())
        self._seen.move_to_end(size)
        while len(self._seen) > _SIZES_KEPT:
            self._seen.popitem(last=False)

    def forget(self) -> None:
        """What the videos took so far holds no longer."""
        self._seen.clear()

    def _nearest(self, plan: Plan) -> tuple[_Size, _Seen]:
        size = _size(plan)
        if size in self._seen:
            return size, self._seen[size]

        def distance(item: tuple[_Size, _Seen]) -> tuple[bool, int]:
            return item[0][0] != size[0], abs(_volume(item[0]) - _volume(size))

        return min(self._seen.items(), key=distance)


def _size(plan: Plan) -> _Size:
    return plan.tier, plan.frames, plan.height, plan.width


def _volume(size: _Size) -> int:
    return size[1] * size[2] * size[3]
