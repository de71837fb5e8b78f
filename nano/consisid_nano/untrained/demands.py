"""The demands that the nano detector makes of a face, as hinges over samples of a few maps of the picture.

A place is (map, x, y), in eye distances from the middle of the eye line. The maps: `skin`, `around` (skin, blurred
more), `darkness`, `eye` and `mouth` (the darkest nearby), `roughness` (how much darkness varies).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

Place = tuple[str, float, float]

TOLERATED = 0.44
"""Summed cost at which face and no face are equally likely."""
AROUND = tuple((side * x, y) for x, y in ((1.35, 0.0), (1.35, 0.6), (1.3, 1.3), (0.7, -1.2)) for side in (-1, 1))
AROUND += ((0.0, -1.2),)
TEMPLES = (-0.8, 0.12), (0.8, 0.12)

_CHEEKS = (-0.45, 0.5), (0.45, 0.5)
_BETWEEN = ("darkness", 0.0, 0.0)
_NOSE = ("darkness", 0.0, 0.28)
_FACE: Mapping[Place, float] = {("darkness", *cheek): 0.5 for cheek in _CHEEKS}


@dataclass(frozen=True, slots=True)
class Demand:
    """Costs `cost` · max(0, Σ weight · sample + bias). `group` says which of several spots it is about."""

    weights: Mapping[Place, float]
    bias: float
    cost: float
    group: int = 0


@cache
def demands() -> tuple[Demand, ...]:
    wanted = [
        Demand({("skin", x, y): -1.0}, 0.9, 1.0)
        for x, y in ((0.0, 0.1), (0.0, 0.45), *_CHEEKS, (-0.5, 0.85), (0.5, 0.85), (0.0, 1.33))
    ]
    wanted += [Demand({("roughness", x, y): 1.0}, -0.11, 6.0) for x, y in (*_CHEEKS, (0.0, 0.2), (0.0, 1.4))]
    for side, cheek, temple in zip((-1, 1), _CHEEKS, TEMPLES, strict=True):
        eye = ("eye", 0.5 * side, 0.0)
        for brighter, cost in ((("darkness", *cheek), 1.0), (_BETWEEN, 1.0), (_NOSE, 0.5)):
            # A must at the first contrast; up to the second, more is better, which settles place and size.
            wanted += [
                Demand({brighter: 1.0, eye: -1.0}, 0.5, cost),
                Demand({brighter: 1.0, eye: -1.0}, 1.0, 0.12 * cost),
            ]
        wanted.append(Demand({("darkness", *temple): 1.0, eye: -1.0}, 0.15, 1.5))
    wanted += _alike({("eye", -0.5, 0.0): 1.0}, {("eye", 0.5, 0.0): 1.0}, 0.3, 1.0)
    wanted += _alike({("darkness", *_CHEEKS[0]): 1.0}, {("darkness", *_CHEEKS[1]): 1.0}, 0.25, 1.0)
    wanted += _alike({_BETWEEN: 1.0}, _FACE, 0.2, 2.0)
    wanted += _alike({_NOSE: 1.0}, _FACE, 0.2, 1.0)
    wanted += _alike({("darkness", 0.0, 0.72): 1.0}, _FACE, 0.35, 1.0)
    wanted += _alike({("darkness", 0.0, 1.38): 1.0}, _FACE, 0.4, 0.5)
    wanted.append(Demand({**_FACE, ("mouth", 0.0, 1.0): -1.0}, 0.25, 2.0))
    return tuple(wanted)


@cache
def difference_from_surroundings() -> tuple[Demand, ...]:
    """How each place around the face differs from it: in darkness, either way, or in not being skin."""
    rows = []
    for spot, (x, y) in enumerate(AROUND):
        there: Mapping[Place, float] = {("darkness", x, y): 1.0}
        rows += [Demand(row.weights, row.bias, 2.0, spot) for row in _alike(there, _FACE, 0.15, 2.0)]
        rows.append(Demand({("around", x, y): -1.0}, 0.9, 1.0, spot))
    return tuple(rows)


def _alike(one: Mapping[Place, float], other: Mapping[Place, float], tolerance: float, cost: float) -> list[Demand]:
    """Two hinges whose costs sum to `cost` · max(0, |one − other| − tolerance)."""
    return [
        Demand({**{p: sign * w for p, w in one.items()}, **{p: -sign * w for p, w in other.items()}}, -tolerance, cost)
        for sign in (1, -1)
    ]
