"""Defines which cases of each variant are measured, and summarises the measurements into findings."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import numpy as np

from consisid_fidelity.judges.judges import SHARES
from consisid_fidelity.metrics.frechet import TooFewSamples, frechet_distance
from consisid_fidelity.metrics.statistics import (
    Estimate,
    estimate,
    paired_difference,
    paired_proportions,
    proportion,
)
from consisid_fidelity.nano.evaluation_set import SMALL
from consisid_fidelity.nano.gate import variant_verdict
from consisid_fidelity.nano.measure import Measurements
from consisid_fidelity.nano.record import Findings
from consisid_fidelity.nano.run import Results
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_fidelity.nano.variants import (
    ABLATIONS,
    CONTROLS,
    DAMAGES,
    EXACT,
    GUIDANCE_SWEEP,
    PROBES,
    RECONSTRUCTED,
    SPECTRA,
    STEP_SWEEP,
    TRUTH,
    names,
)
from consisid_runtime.options import Options

SMALL_OPTIONS = Options(steps=6, guidance=2.0)
SMALL_GALLERY = 8
SMALL_FRAMES = 5
NO_CHANGE = ("latents", "psnr", "ssim", "clip_distance")
"""Metrics that are distances to a reference already; no difference to `exact` is computed."""

_DIGITS = 6
_DETAILED = (TRUTH, RECONSTRUCTED, EXACT, *names(ABLATIONS))
_SERIES = ("spectrum", "face_features", "portrait_features")
_DETAILS = ("prompt.", "person.", "own.", "other.")


def full_case_counts(people: int, sweep: int) -> dict[str, int]:
    """Variant → number of cases: `people` for `exact` and the ablations, the first `sweep` of them for the others."""
    fewer = min(sweep, people)
    return dict.fromkeys((EXACT, TRUTH, RECONSTRUCTED, *names(ABLATIONS)), people) | dict.fromkeys(
        names((*CONTROLS, *DAMAGES, *PROBES, *STEP_SWEEP, *GUIDANCE_SWEEP)), fewer
    )


def small_case_counts() -> dict[str, int]:
    """Variant → number of cases, for tests: the gate's controls and damage only."""
    return dict.fromkeys((EXACT, *names((*CONTROLS, *DAMAGES))), SMALL)


def small_setup(setup: ExperimentSetup) -> ExperimentSetup:
    """The same bundle and judges with few steps, frames and people in the gallery."""
    return replace(setup, options=SMALL_OPTIONS, gallery=SMALL_GALLERY, frames=SMALL_FRAMES)


def unexpected_verdicts(findings: Findings) -> list[str]:
    """Names of controls that failed and of damage that passed."""
    expected = dict.fromkeys(names(CONTROLS), True) | dict.fromkeys(names(DAMAGES), False)
    return [
        name for name, wanted in expected.items() if findings.verdicts.get(name, {}).get("passed", wanted) != wanted
    ]


def summarise(results: Results) -> Findings:
    """Compute every figure from the measurements."""
    counts = case_counts(results)
    judged = [name for name in names((*CONTROLS, *DAMAGES, *PROBES)) if counts.get(name, 0) > 1]
    return Findings(
        figures={name: _figures(results, name, range(n)) for name, n in counts.items()},
        spectra={name: _spectrum(results, name, range(counts[name])) for name in SPECTRA if name in counts},
        verdicts={name: variant_verdict(results, name, counts[name]).to_json() for name in judged},
    )


def case_counts(results: Results) -> dict[str, int]:
    """Variant → number of its cases, which are counted from 0."""
    return {name: 1 + max(number for other, number in results if other == name) for name, _ in results}


def _figures(results: Results, name: str, numbers: Iterable[int]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    own = {number: results[name, number] for number in numbers}
    ignored = _SERIES if name in _DETAILED else (*_SERIES, *_DETAILS)
    for metric in dict.fromkeys(metric for values in own.values() for metric in values):
        if metric.startswith(ignored):
            continue
        known = {number: values[metric] for number, values in own.items() if values.get(metric) is not None}
        if not known:
            continue
        single = all(isinstance(value, bool) for value in known.values())
        found_values = list(known.values())
        limits = (0.0, 1.0) if metric in SHARES else ()
        figure = proportion(found_values) if single else estimate(found_values, *limits)
        found[metric] = _rounded(figure.to_json())
        base = {number: results[EXACT, number].get(metric) for number in known if (EXACT, number) in results}
        if name != EXACT and metric not in NO_CHANGE and len(base) == len(known) and None not in base.values():
            compare = paired_proportions if single else paired_difference
            change = compare(found_values, [results[EXACT, number][metric] for number in known])
            found[metric]["change"] = _rounded(change.to_json())
    return found | _fid(list(own.values()))


def _fid(own: list[Measurements]) -> dict[str, dict[str, Any]]:
    """The Fréchet distance between the faces of all videos and of all portraits; empty when there are too few."""
    seen = [np.asarray(values["face_features"], np.float64) for values in own if "face_features" in values]
    if not seen:
        return {}
    faces = np.concatenate(seen)
    try:
        distance = frechet_distance(faces, [values["portrait_features"] for values in own])
    except TooFewSamples:
        return {}
    return {"fid": _rounded(Estimate(distance, None, None, len(faces)).to_json())}


def _spectrum(results: Results, name: str, numbers: Iterable[int]) -> list[float]:
    levels = [results[name, number]["spectrum"] for number in numbers if "spectrum" in results[name, number]]
    return [round(float(level), _DIGITS) for level in np.mean(levels, axis=0)]


def _rounded(figure: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in figure.items()}
