"""The quality gate for a faster tier: computes a verdict from paired measurements and limits.

Identity similarity alone does not detect some damage (too few steps, coarse weights), so the gate also limits paired
distances to the reference run's latents and pixels. The whole 95 % confidence interval of every mean must be within its
limit: more videos make the gate more sensitive, too few make it fail. Videos that all change by the same amount have an
interval of zero width; `MIN_VIDEOS` guards against passing on those. NaN and infinity fail.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from consisid_fidelity.metrics.statistics import Estimate, estimate

MIN_VIDEOS = 4
"""Number of videos below which every criterion on a mean fails."""


@dataclass(frozen=True, slots=True)
class RunMetrics:
    """The metrics of one run over the evaluation set, one value per video.

    Attributes:
        cases: identifier of each video, e.g. "person 7, scene 3, seed 1"; equal in the runs that are compared.
        identity: cosine similarity to the portrait, mean over frames; frames without a face count as 0.
        prompt_accuracy: share of the prompt's attributes that the video shows.
        faces_found: share of frames with a face.
        flicker: `stability.flicker`, levels of 255.
    """

    cases: Sequence[str]
    identity: npt.ArrayLike
    prompt_accuracy: npt.ArrayLike
    faces_found: npt.ArrayLike
    flicker: npt.ArrayLike


@dataclass(frozen=True, slots=True)
class Distances:
    """Distances of each candidate video to the reference video of the same case.

    Attributes:
        latents: `distance.relative_distance` of the final latents.
        psnr: dB.
        clip: `ClipJudge.feature_distance`.
    """

    latents: npt.ArrayLike
    psnr: npt.ArrayLike
    clip: npt.ArrayLike


@dataclass(frozen=True, slots=True)
class Limit:
    """A limit and the reason for its value."""

    value: float
    reason: str


@dataclass(frozen=True, slots=True)
class Limits:
    """How far a candidate may fall behind the reference; no limit has a default.

    Attributes:
        identity: minimum mean change (candidate − reference); −0.01 allows a loss of 0.01.
        prompt_accuracy, faces_found: minimum mean change.
        flicker: maximum mean change, levels of 255.
        latents, clip: maximum mean distance.
        worst_latents: maximum distance of any single video; a mean can hide one bad video.
        psnr: minimum mean, dB.
    """

    identity: Limit
    prompt_accuracy: Limit
    faces_found: Limit
    flicker: Limit
    latents: Limit
    worst_latents: Limit
    clip: Limit
    psnr: Limit


@dataclass(frozen=True, slots=True)
class Criterion:
    """The outcome of one criterion.

    Attributes:
        name: of the limit.
        figure: the mean with its interval, or the worst single video; None when values were not finite.
        limit, reason: the limit and the reason for its value.
        at_least: whether the limit is a minimum; otherwise a maximum.
        passed: whether the figure is within the limit.
        case: the worst video's case, or the first case with a value that is not finite.
    """

    name: str
    figure: Estimate | None
    limit: float
    reason: str
    at_least: bool
    passed: bool
    case: str | None = None

    def __str__(self) -> str:
        relation = "at least" if self.at_least else "at most"
        figure = "not finite" if self.figure is None else str(self.figure)
        case = f", {self.case}" if self.case else ""
        outcome = "pass" if self.passed else "FAIL"
        return f"{outcome}  {self.name}: {figure}{case}; {relation} {self.limit:g}: {self.reason}"


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcomes of all criteria; passed when all of them passed."""

    criteria: tuple[Criterion, ...]

    @property
    def passed(self) -> bool:
        return all(criterion.passed for criterion in self.criteria)

    @property
    def failed(self) -> tuple[str, ...]:
        """Names of the criteria that failed."""
        return tuple(criterion.name for criterion in self.criteria if not criterion.passed)

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "failed": list(self.failed),
            "criteria": [asdict(each) for each in self.criteria],
        }

    def __str__(self) -> str:
        return "\n".join(map(str, self.criteria))


def compare_runs(candidate: RunMetrics, reference: RunMetrics, distances: Distances, limits: Limits) -> Verdict:
    """Compute whether the candidate is as good as the reference, within the limits.

    With fewer videos than `MIN_VIDEOS`, every criterion but `worst_latents` fails.

    Raises `ValueError` when the runs do not have the same cases in the same order, when cases repeat, or when a value
    is missing.
    """
    cases = list(candidate.cases)
    if cases != list(reference.cases) or not cases or len(set(cases)) != len(cases):
        raise ValueError(
            f"both runs need the same cases in the same order, each once, got {len(cases)} and {len(reference.cases)}"
        )

    def values(name: str, what: npt.ArrayLike) -> npt.NDArray[np.float64]:
        array = np.asarray(what, np.float64)
        if array.shape != (len(cases),):
            raise ValueError(f"{name} needs a value for each of {len(cases)} cases, got shape {list(array.shape)}")
        return array

    def mean(name: str, limit: Limit, values: npt.NDArray[np.float64], *, at_least: bool) -> Criterion:
        if (broken := ~np.isfinite(values)).any():
            return Criterion(name, None, limit.value, limit.reason, at_least, False, cases[int(broken.argmax())])
        figure = estimate(values)
        bound = figure.low if at_least else figure.high
        within = bound is not None and (bound >= limit.value if at_least else bound <= limit.value)
        passed = within and len(values) >= MIN_VIDEOS
        return Criterion(name, figure, limit.value, limit.reason, at_least, passed)

    def change(name: str, *, at_least: bool) -> Criterion:
        found, wanted = (values(name, getattr(run, name)) for run in (candidate, reference))
        with np.errstate(invalid="ignore"):
            return mean(name, getattr(limits, name), found - wanted, at_least=at_least)

    latents = values("latents", distances.latents)
    return Verdict(
        (
            change("identity", at_least=True),
            change("prompt_accuracy", at_least=True),
            change("faces_found", at_least=True),
            change("flicker", at_least=False),
            mean("latents", limits.latents, latents, at_least=False),
            _worst(limits.worst_latents, latents, cases),
            mean("clip", limits.clip, values("clip", distances.clip), at_least=False),
            mean("psnr", limits.psnr, values("psnr", distances.psnr), at_least=True),
        )
    )


def _worst(limit: Limit, latents: npt.NDArray[np.float64], cases: Sequence[str]) -> Criterion:
    index = int(np.where(np.isfinite(latents), latents, np.inf).argmax())
    worst = float(latents[index])
    figure = Estimate(worst, None, None, 1) if np.isfinite(worst) else None
    passed = figure is not None and worst <= limit.value
    return Criterion("worst_latents", figure, limit.value, limit.reason, False, passed, cases[index])
