"""Constraints that the untrained checkpoint's detector and aligner test for a face, as hinges over sampled maps.

A place is (map, x, y), in eye distances from the middle of the eye line. The maps: `skin`, `around` (skin, blurred
more), `darkness`, `eye` and `mouth` (maximum darkness nearby), `roughness` (local variation of darkness).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache

Place = tuple[str, float, float]

TOLERATED = 0.44
"""Summed cost at which the score is one half."""
AROUND = tuple((side * x, y) for x, y in ((1.35, 0.0), (1.35, 0.6), (1.3, 1.3), (0.7, -1.2)) for side in (-1, 1))
AROUND += ((0.0, -1.2),)
TEMPLES = (-0.8, 0.12), (0.8, 0.12)

_CHEEKS = (-0.45, 0.5), (0.45, 0.5)
_BETWEEN = ("darkness", 0.0, 0.0)
_NOSE = ("darkness", 0.0, 0.28)
_FACE: Mapping[Place, float] = {("darkness", *cheek): 0.5 for cheek in _CHEEKS}


@dataclass(frozen=True, slots=True)
class Constraint:
    """A term `cost` · max(0, Σ weight · sample + bias) of the cost; `group` is the index of its spot in `AROUND`."""

    weights: Mapping[Place, float]
    bias: float
    cost: float
    group: int = 0


@cache
def face_constraints() -> tuple[Constraint, ...]:
    """Constraints on the parts of a face."""
    found = [
        Constraint({("skin", x, y): -1.0}, 0.9, 1.0)
        for x, y in ((0.0, 0.1), (0.0, 0.45), *_CHEEKS, (-0.5, 0.85), (0.5, 0.85), (0.0, 1.33))
    ]
    found += [Constraint({("roughness", x, y): 1.0}, -0.11, 6.0) for x, y in (*_CHEEKS, (0.0, 0.2), (0.0, 1.4))]
    for side, cheek, temple in zip((-1, 1), _CHEEKS, TEMPLES, strict=True):
        eye = ("eye", 0.5 * side, 0.0)
        for brighter, cost in ((("darkness", *cheek), 1.0), (_BETWEEN, 1.0), (_NOSE, 0.5)):
            # Full cost below the first contrast; a slope up to the second, which makes place and size definite.
            found += [
                Constraint({brighter: 1.0, eye: -1.0}, 0.5, cost),
                Constraint({brighter: 1.0, eye: -1.0}, 1.0, 0.12 * cost),
            ]
        found.append(Constraint({("darkness", *temple): 1.0, eye: -1.0}, 0.15, 1.5))
    found += _alike({("eye", -0.5, 0.0): 1.0}, {("eye", 0.5, 0.0): 1.0}, 0.3, 1.0)
    found += _alike({("darkness", *_CHEEKS[0]): 1.0}, {("darkness", *_CHEEKS[1]): 1.0}, 0.25, 1.0)
    found += _alike({_BETWEEN: 1.0}, _FACE, 0.2, 2.0)
    found += _alike({_NOSE: 1.0}, _FACE, 0.2, 1.0)
    found += _alike({("darkness", 0.0, 0.72): 1.0}, _FACE, 0.35, 1.0)
    found += _alike({("darkness", 0.0, 1.38): 1.0}, _FACE, 0.4, 0.5)
    found.append(Constraint({**_FACE, ("mouth", 0.0, 1.0): -1.0}, 0.25, 2.0))
    return tuple(found)


@cache
def contrast_constraints() -> tuple[Constraint, ...]:
    """Constraints on each spot around the face: darker or brighter than the face, or not skin."""
    rows = []
    for spot, (x, y) in enumerate(AROUND):
        there: Mapping[Place, float] = {("darkness", x, y): 1.0}
        rows += [Constraint(row.weights, row.bias, 2.0, spot) for row in _alike(there, _FACE, 0.15, 2.0)]
        rows.append(Constraint({("around", x, y): -1.0}, 0.9, 1.0, spot))
    return tuple(rows)


def _alike(one: Mapping[Place, float], other: Mapping[Place, float], tolerance: float, cost: float) -> list[Constraint]:
    """Return two hinges whose costs sum to `cost` · max(0, |one − other| − tolerance)."""
    difference = {**one, **{place: -weight for place, weight in other.items()}}
    return [Constraint({p: sign * w for p, w in difference.items()}, -tolerance, cost) for sign in (1, -1)]
