"""The quality gate of the nano model: its limits, the metrics it compares, and the comparison of two bundles."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from consisid_fidelity.judges.judges import Judges
from consisid_fidelity.metrics import distance
from consisid_fidelity.nano.evaluation_set import case
from consisid_fidelity.nano.run import ExperimentRun, Results
from consisid_fidelity.nano.variants import EXACT
from consisid_fidelity.nano.worker import load_reference
from consisid_fidelity.verdict import Criterion, Distances, Limit, Limits, RunMetrics, Verdict, compare_runs
from consisid_runtime.errors import NotFinite
from consisid_runtime.events import Progress

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

TIER_LIMITS = {
    "fp8": replace(
        LIMITS,
        flicker=Limit(0.56, "as much as rounding to 8 bits adds by itself"),
        latents=Limit(0.2, "above what E4M3 costs, below two thirds of what weights in four bits do"),
        worst_latents=Limit(0.4, "twice as much as the mean may be"),
        clip=Limit(0.05, "a third of what half as many steps cost"),
        psnr=Limit(25.0, "an error of 14 levels: other fine motion, the same scene"),
    ),
    "fast": replace(
        LIMITS,
        latents=Limit(0.15, "half of what half as many steps cost"),
        worst_latents=Limit(0.3, "twice as much as the mean may be"),
        clip=Limit(0.05, "a third of what half as many steps cost"),
        psnr=Limit(25.0, "an error of 14 levels: other fine motion, the same scene"),
    ),
    "draft": replace(
        LIMITS,
        latents=Limit(0.6, "another video of the same person and scene"),
        worst_latents=Limit(0.9, "below that of another person's video"),
        clip=Limit(0.2, "another video of the same person and scene"),
        psnr=Limit(15.0, "another video of the same person and scene"),
    ),
}
"""Tier → how far it may be from `exact` on the same people, with each tier's own steps and guidance."""


def variant_verdict(results: Results, name: str, count: int, limits: Limits = LIMITS) -> Verdict:
    """The verdict on the first `count` cases of a variant whose reference is `exact`.

    A video that was not finite fails every criterion.
    """
    columns = (_column(results, name, metric, count) for metric in ("latents", "psnr", "clip_distance"))
    return compare_runs(
        run_metrics(results, name, count), run_metrics(results, EXACT, count), Distances(*columns), limits
    )


def compare_bundles(
    candidate: ExperimentRun, reference: ExperimentRun, count: int, processes: int, progress: Progress | None = None
) -> Verdict:
    """The verdict on a candidate bundle against a reference bundle, on the first `count` cases of `exact`.

    A candidate whose networks return infinities or NaN fails by the single criterion "finite".

    Args:
        candidate, reference: with the same judges; their bundles, or options such as steps, differ.
        processes, progress: as in `ExperimentRun.measure`.

    Raises what generating and judging raise, and `ValueError` for videos of different sizes.
    """
    reference_results = reference.measure({EXACT: count}, processes, progress)
    try:
        candidate_results = candidate.measure({EXACT: count}, processes, progress)
    except NotFinite as error:
        return Verdict((Criterion("finite", None, 0.0, str(error), True, False),))
    clip = Judges.open(reference.setup.judges, "cpu").clip
    latents, psnr, features = [], [], []
    for number in range(count):
        found, wanted = (load_reference(run.folder, EXACT, number) for run in (candidate, reference))
        latents.append(distance.relative_distance(found.latents, wanted.latents))
        psnr.append(distance.psnr(found.frames, wanted.frames))
        features.append(clip.feature_distance(found.frames, wanted.frames))
    candidate_run, reference_run = (run_metrics(each, EXACT, count) for each in (candidate_results, reference_results))
    return compare_runs(candidate_run, reference_run, Distances(latents, psnr, features), LIMITS)


def run_metrics(results: Results, name: str, count: int) -> RunMetrics:
    """The gate's metrics of the first `count` videos of a variant."""
    metrics = ("facesim_arc", "prompt_accuracy", "faces_found", "flicker")
    columns = (_column(results, name, metric, count) for metric in metrics)
    return RunMetrics([case(number).name for number in range(count)], *columns)


def _column(results: Results, name: str, metric: str, count: int) -> npt.NDArray[np.float64]:
    return np.array([results[name, number].get(metric, math.nan) for number in range(count)], np.float64)
