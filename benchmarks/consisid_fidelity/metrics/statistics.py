"""Means with confidence intervals, paired differences, proportions, and rank-1 identification."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats  # type: ignore[import-untyped, unused-ignore]

Floats = npt.NDArray[np.float64]
Booleans = npt.NDArray[np.bool_]

CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over `n` samples and its 95 % confidence interval; `low` and `high` are None without an interval."""

    mean: float
    low: float | None
    high: float | None
    n: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    def __str__(self) -> str:
        interval = "no interval" if self.low is None or self.high is None else f"{self.low:.4g} to {self.high:.4g}"
        return f"{self.mean:.4g} ({interval}, n = {self.n})"


def estimate(values: npt.ArrayLike, least: float = -np.inf, most: float = np.inf) -> Estimate:
    """The mean of independent samples [n], with Student's t interval clamped to [`least`, `most`].

    A single sample has no interval. Raises `ValueError` without samples or for a sample that is not finite; the caller
    leaves out values that were not measured.
    """
    samples = np.asarray(values, np.float64)
    if samples.ndim != 1 or not len(samples):
        raise ValueError(f"a mean needs samples [n ≥ 1], got shape {list(samples.shape)}")
    if not np.isfinite(samples).all():
        raise ValueError(f"{int((~np.isfinite(samples)).sum())} of {len(samples)} samples are not finite")
    mean, n = float(samples.mean()), len(samples)
    if n == 1:
        return Estimate(mean, None, None, n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, n - 1) * samples.std(ddof=1) / np.sqrt(n))
    return Estimate(mean, max(least, mean - half), min(most, mean + half), n)


def paired_difference(candidate: npt.ArrayLike, reference: npt.ArrayLike) -> Estimate:
    """The mean of candidate − reference over pairs [n], [n].

    The variation that both members of a pair share (the person, the prompt, the noise) cancels, so the interval covers
    the change alone. Raises `ValueError` for unequal lengths, and as `estimate` does.
    """
    first, second = np.asarray(candidate, np.float64), np.asarray(reference, np.float64)
    if first.shape != second.shape:
        raise ValueError(f"pairs need equal lengths, got {list(first.shape)} and {list(second.shape)}")
    return estimate(first - second)


def paired_proportions(candidate: npt.ArrayLike, reference: npt.ArrayLike) -> Estimate:
    """The difference of two shares of successes over pairs [n], [n].

    The interval is Agresti and Min's (Statistics in Medicine 24, 2005): half a pair is added to each of the four
    outcomes, so that its width is not zero when no pair differs. Raises `ValueError` for unequal lengths or no pairs.
    """
    first, second = np.asarray(candidate, np.bool_), np.asarray(reference, np.bool_)
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(f"pairs need equal lengths, got {list(first.shape)} and {list(second.shape)}")
    n = len(first) + 2
    gained, lost = float((first & ~second).sum()) + 0.5, float((~first & second).sum()) + 0.5
    middle = (gained - lost) / n
    half = float(stats.norm.ppf((1 + CONFIDENCE) / 2)) * np.sqrt(gained + lost - (gained - lost) ** 2 / n) / n
    mean = float(first.mean() - second.mean())
    return Estimate(mean, max(-1.0, middle - half), min(1.0, middle + half), len(first))


def proportion(outcomes: npt.ArrayLike) -> Estimate:
    """The share of successes [n], with Wilson's score interval, whose width is not zero when all succeed.

    Raises `ValueError` without outcomes.
    """
    successes = np.asarray(outcomes, np.bool_)
    if successes.ndim != 1 or not len(successes):
        raise ValueError(f"a share needs outcomes [n ≥ 1], got shape {list(successes.shape)}")
    interval = stats.binomtest(int(successes.sum()), len(successes)).proportion_ci(CONFIDENCE, method="wilson")
    return Estimate(float(successes.mean()), float(interval.low), float(interval.high), len(successes))


def rank1(similarity: npt.ArrayLike, person: npt.ArrayLike) -> Booleans:
    """Whether each video is more similar to the right person than to every other person.

    A tie is a miss, so a video without a face (similarity 0 to everybody) identifies nobody.

    Args:
        similarity: [videos, people].
        person: column of the right person for each video, integers [videos].

    Returns booleans [videos]. Raises `ValueError` for invalid shapes, fewer than two people or an unknown column.
    """
    table, right = np.asarray(similarity, np.float64), np.asarray(person)
    if table.ndim != 2 or table.shape[1] < 2 or right.shape != table.shape[:1]:
        raise ValueError(
            "similarity must be [videos, people ≥ 2] and person [videos], "
            f"got {list(table.shape)} and {list(right.shape)}"
        )
    if not np.issubdtype(right.dtype, np.integer) or ((right < 0) | (right >= table.shape[1])).any():
        raise ValueError(f"person must hold columns 0 to {table.shape[1] - 1}, got {right}")
    rows = np.arange(len(table))
    others = table.copy()
    others[rows, right] = -np.inf
    return np.asarray(table[rows, right] > others.max(axis=1), np.bool_)
