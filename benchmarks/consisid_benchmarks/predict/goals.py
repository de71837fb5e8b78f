"""The goals of a GPU, each beside its prediction, and what is expected to reach those that it misses."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from consisid_runtime.memory import needs
from consisid_runtime.memory.plan import RESERVED, fit

_GIB = 2**30


@dataclass(frozen=True, slots=True)
class Goal:
    """At most `limit`, in `unit`, of what `best`, `likely` or `worst` gives."""

    what: str
    limit: float
    unit: str
    predicted: Callable[[Mapping[str, Any], str], float]
    would: str


def _planned(setting: int) -> int:
    """Bytes that a memory setting takes, with those that it leaves free; more than any GPU has where it has no plan."""
    found = fit(needs.read(), setting * _GIB - RESERVED)
    return found.peak + RESERVED if found else sys.maxsize


def _seconds(stage: str) -> Callable[[Mapping[str, Any], str], float]:
    return lambda found, end: float(found["stages"][stage]["seconds"][end])


def _tier(name: str) -> Callable[[Mapping[str, Any], str], float]:
    return lambda found, end: float(found["tiers"][name]["seconds"][end])


GOALS = (
    Goal(
        "`exact`, 50 steps", 62, "s", lambda found, end: float(found["request"]["seconds"][end]),
        "attention at more than 500 TFLOP/s",
    ),
    Goal(
        "`fp8`, 50 steps", 42, "s", lambda found, end: float(found["fp8"]["request"]["seconds"][end]),
        "attention, which stays in bf16, at more than 500 TFLOP/s, and norms that write E4M3 numbers themselves",
    ),
    Goal("`fast`, on fp8, with nano's curve", 15, "s", _tier("fast"), "a curve that allows to skip more"),
    Goal("`draft`, on fp8, with nano's curve", 7, "s", _tier("draft"), "fewer steps: `ddim` takes 10 on nano"),
    Goal("face networks", 0.08, "s", _seconds("face"), "fewer launches: the four networks as CUDA graphs"),
    Goal("text", 0.05, "s", _seconds("text"), "fewer launches: the encoder as a CUDA graph"),
    Goal("decode", 1.0, "s", _seconds("decode"), "convolutions at more than 0.4 of the peak"),
    Goal(
        "decode, peak", 8, "GiB", lambda found, end: float(found["stages"]["decode"]["peak_bytes"] / _GIB),
        "fewer frames in a chunk",
    ),
    Goal(
        "`exact`, one process, `--memory 24`", 24, "GiB", lambda found, end: _planned(24) / _GIB,
        "`--memory 16`, where weights come from the host more often",
    ),
)  # fmt: skip
NOT_PREDICTED = (
    "Not predicted: every ratio to diffusers, since no peer is counted; the host's own arithmetic, such as the "
    "positions of `denoise/start`; and attention's rate, whose goal is 560 TFLOP/s: it is an assumption here, for the "
    "Gluon form."
)


def verdict(goal: Goal, found: Mapping[str, Any]) -> str:
    """Whether a prediction reaches a goal: even at worst, likely, only at best, or not; and what would."""
    best, likely, worst = (goal.predicted(found, end) for end in ("best", "likely", "worst"))
    if likely <= goal.limit:
        return "reached" if worst <= goal.limit else "likely reached"
    return f"**{'reached at best only' if best <= goal.limit else 'not reached'}**; would: {goal.would}"
