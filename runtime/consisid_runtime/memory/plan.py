"""From what modules need and what there is to a plan: which weights stay on the GPU, which come when they are needed.

A pure function. Weights that do not stay lie in pinned memory of the host: they never change, so that leaving the GPU
costs nothing and coming back is one copy, made beside the module before where there is room.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from consisid_runtime.errors import MemoryTooSmall
from consisid_runtime.memory.needs import ORDER, SHARED, Needs

SETTINGS = (12, 16, 24, 48, 80)
"""GiB of a GPU that a plan may be asked for."""
AUTO = "auto"
GIB = 2**30
RESERVED = 3 * GIB // 2
"""Bytes that are left free. An assumption: for CUDA's context, the libraries' workspaces and what the allocator cannot
fill, none of which can be counted without a GPU."""
SLOTS = 2
"""Blocks of the step that are on the device at once, of those that come from the host in every step."""

_STAY = (
    *("dit_modulate", "dit_step", "dit_prepare", "vae_decoder_first", "vae_encoder"),
    *("local_extractor", "aligner", "parser", "clip", "text_encoder"),
)
"""What stays on the device first. Modulations are needed before every block of steps; the text encoder can come while
the face is looked for."""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Where the weights of a bundle lie. Modules are those that own weights: not the keys of `needs.SHARED`.

    Attributes:
        budget: bytes that tensors may take.
        resident: modules whose weights never leave the device.
        company: module that runs → modules whose weights are on the device meanwhile; those that it does not need come
            while it runs.
        streamed: blocks of the step that come from the host in every step.
        peaks: module that runs → bytes on the device at most.
    """

    budget: int
    resident: tuple[str, ...]
    company: Mapping[str, tuple[str, ...]]
    streamed: int
    peaks: Mapping[str, int]

    @property
    def peak(self) -> int:
        """Bytes of tensors on the device at most."""
        return max(self.peaks.values())

    def to_json(self) -> dict[str, Any]:
        """What a video's `info` says of it."""
        return {
            "budget_bytes": self.budget,
            "peak_bytes": self.peak,
            "resident": list(self.resident),
            "on_demand": [name for name in owners() if name not in self.resident],
            "streamed_blocks": self.streamed,
        }

    def __str__(self) -> str:
        away = [name for name in owners() if name not in self.resident]
        parts = [f"memory: at most {self.peak / GIB:.1f} of {self.budget / GIB:.1f} GiB for tensors"]
        parts.append(f"on the host until needed: {', '.join(away)}" if away else "all weights stay on the GPU")
        if self.streamed:
            parts.append(f"{self.streamed} blocks of dit_step come from the host in every step")
        return "; ".join(parts)


def owners() -> list[str]:
    """The modules with weights of their own, in the order of a request."""
    return [name for name in ORDER if name not in SHARED]


def needed(module: str) -> tuple[str, ...]:
    """Whose weights are on the device while a module runs: its own; the step's stay for the modulations in between."""
    own = SHARED.get(module, module)
    return ("dit_step", own) if own == "dit_modulate" else (own,)


def fit(needs: Needs, budget: int) -> MemoryPlan | None:
    """The plan that moves the least, for `budget` bytes of tensors; None where there is none."""
    for streamed in (0, *range(2 * SLOTS, needs.blocks + 1, SLOTS)):
        costs = _Costs(needs, budget, streamed)
        if costs.fits(()):
            return costs.plan()
    return None


def plan_memory(needs: Needs, budget: int, asked: str) -> MemoryPlan:
    """`fit`, or `MemoryTooSmall`, which says what would do. `asked`: how the message names the budget."""
    plan = fit(needs, budget)
    if plan is None:
        raise MemoryTooSmall(f"{asked} is too little memory for this: {enough(needs)}")
    return plan


def enough(needs: Needs) -> str:
    """The smallest setting that fits, as a clause of a message."""
    for setting in SETTINGS:
        if fit(needs, setting * GIB - RESERVED) is not None:
            return f"the smallest setting for it is {setting}"
    least = min(_Costs(needs, 0, streamed).least for streamed in (0, needs.blocks // SLOTS * SLOTS))
    return f"it takes {(least + RESERVED) / GIB:.1f} GiB, more than any setting"


def covers(plan: MemoryPlan, needs: Needs) -> bool:
    """Whether a plan, made for another size of video, holds for these needs."""
    costs = _Costs(needs, plan.budget, plan.streamed)
    return all(costs.of(module, plan.company[module]) <= plan.budget for module in ORDER)


def peak_of(plan: MemoryPlan, needs: Needs) -> int:
    """Bytes of tensors on the device at most, with a plan that was made for another size of video."""
    costs = _Costs(needs, plan.budget, plan.streamed)
    return max(costs.of(module, plan.company[module]) for module in ORDER)


class _Costs:
    """Bytes with a number of streamed blocks."""

    def __init__(self, needs: Needs, budget: int, streamed: int) -> None:
        self._needs, self._budget, self._streamed = needs, budget, streamed
        self._weights = {**needs.weights}
        if streamed:
            self._weights["dit_step"] -= (streamed - SLOTS) * needs.block

    def of(self, module: str, company: Iterable[str]) -> int:
        """While a module runs beside these weights."""
        return self._needs.fixed + self._needs.working[module] + sum(self._weights[name] for name in company)

    def fits(self, resident: Iterable[str]) -> bool:
        if any(self.of(module, {*needed(module), *resident}) > self._budget for module in ORDER):
            return False
        # A step of which blocks are streamed is made on the device whole.
        beside = sum(self._weights[name] for name in resident if name != "dit_step")
        return self._needs.fixed + self._needs.weights["dit_step"] + beside <= self._budget

    @property
    def least(self) -> int:
        """Bytes below which nothing fits."""
        whole = self._needs.fixed + self._needs.weights["dit_step"]
        return max(whole, *(self.of(module, needed(module)) for module in ORDER))

    def plan(self) -> MemoryPlan:
        resident: list[str] = []
        for name in _STAY:
            if self.fits([*resident, name]):
                resident.append(name)
        company = self._companies(resident)
        return MemoryPlan(
            budget=self._budget,
            resident=tuple(name for name in owners() if name in resident),
            company=company,
            streamed=self._streamed,
            peaks={module: self.of(module, company[module]) for module in ORDER},
        )

    def _companies(self, resident: list[str]) -> dict[str, tuple[str, ...]]:
        """With what comes ahead: one module's weights at a time, as early as they have room until they are needed."""
        found, ahead = {}, ""
        for i, module in enumerate(ORDER):
            if ahead in needed(module):
                ahead = ""
            ahead = ahead or self._ahead(i, resident)
            on = {*resident, *needed(module), ahead}
            found[module] = tuple(name for name in owners() if name in on)
        return found

    def _ahead(self, i: int, resident: list[str]) -> str:
        """What comes while module number i runs: the next weights that are missing, if they have room; else ""."""
        for j in range(i + 1, len(ORDER)):
            for name in needed(ORDER[j]):
                if name not in resident and name not in needed(ORDER[i]):
                    meanwhile = ((module, {*resident, *needed(module), name}) for module in ORDER[i:j])
                    return name if all(self.of(*each) <= self._budget for each in meanwhile) else ""
        return ""
