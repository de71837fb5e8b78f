"""The gate of the nano model: which measurements of two runs are compared, and within which limits."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from consisid_fidelity.nano.run import Rows
from consisid_fidelity.nano.set import case
from consisid_fidelity.nano.variants import EXACT
from consisid_fidelity.verdict import Distances, Limit, Limits, Run, Verdict, judge

LIMITS = Limits(
    identity=Limit(-0.01, "half of the smallest difference that ConsisID's tables rest on (table 3, d and e: 0.02)"),
    prompt_accuracy=Limit(-0.021, "one attribute in eight videos of six attributes each"),
    faces_found=Limit(-0.01, "one frame in a hundred"),
    flicker=Limit(0.28, "half of what rounding to 8 bits adds by itself, 0.56 levels"),
    latents=Limit(0.03, "above what the controls cost, below what the mildest known damage does"),
    worst_latents=Limit(0.06, "twice as much as the mean may be"),
    clip=Limit(0.02, "above what the controls cost, below what most known damage does"),
    psnr=Limit(40.0, "an error of 2.5 levels, a hundredth of the range"),
)


def verdict(rows: Rows, name: str, count: int) -> Verdict:
    """Whether the first `count` cases of a variant are as good as `exact`'s, which they were compared with.

    A video that was not finite fails every criterion.
    """
    columns = (_column(rows, name, metric, count) for metric in ("latents", "psnr", "clip_distance"))
    return judge(run(rows, name, count), run(rows, EXACT, count), Distances(*columns), LIMITS)


def run(rows: Rows, name: str, count: int) -> Run:
    """What the gate looks at in the first `count` videos of a variant."""
    metrics = ("facesim_arc", "prompt_accuracy", "faces_found", "flicker")
    return Run([case(number).name for number in range(count)], *(_column(rows, name, each, count) for each in metrics))


def _column(rows: Rows, name: str, metric: str, count: int) -> npt.NDArray[np.float64]:
    return np.array([rows[name, number].get(metric, math.nan) for number in range(count)], np.float64)
