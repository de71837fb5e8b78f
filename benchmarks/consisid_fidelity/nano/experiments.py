"""The questions that the nano model answers: which videos each needs, and what all measurements come to."""

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
from consisid_fidelity.nano.gate import verdict
from consisid_fidelity.nano.observe import Values
from consisid_fidelity.nano.record import Findings
from consisid_fidelity.nano.run import Rows
from consisid_fidelity.nano.set import SMALL
from consisid_fidelity.nano.variants import (
    ABLATIONS,
    CONTROLS,
    DAMAGES,
    EXACT,
    GUIDED,
    PROBES,
    RECONSTRUCTED,
    SPECTRA,
    SWEEP,
    TRUTH,
    names,
)
from consisid_fidelity.nano.worker import Subject
from consisid_runtime.options import Options

SMALL_OPTIONS = Options(steps=6, guidance=2.0)
SMALL_GALLERY = 8
SMALL_FRAMES = 5
NO_CHANGE = ("latents", "psnr", "ssim", "clip_distance")
"""Metrics that are comparisons already."""

_DIGITS = 6
_DETAILED = (TRUTH, RECONSTRUCTED, EXACT, *names(ABLATIONS))
_SERIES = ("spectrum", "face_features", "portrait_features")
_DETAILS = ("prompt.", "person.", "own.", "other.")


def large(people: int, sweep: int) -> dict[str, int]:
    """Variant → cases: identity and ablations over `people`, what repeats a question over the first `sweep`."""
    repeated = min(sweep, people)
    return dict.fromkeys((EXACT, TRUTH, RECONSTRUCTED, *names(ABLATIONS)), people) | dict.fromkeys(
        names((*CONTROLS, *DAMAGES, *PROBES, *SWEEP, *GUIDED)), repeated
    )


def small() -> dict[str, int]:
    """The gate's part, for tests: with few steps and few cases."""
    return dict.fromkeys((EXACT, *names((*CONTROLS, *DAMAGES))), SMALL)


def small_subject(subject: Subject) -> Subject:
    """The same bundle and judges, asked quickly: few steps, frames and people to tell apart."""
    return replace(subject, options=SMALL_OPTIONS, gallery=SMALL_GALLERY, frames=SMALL_FRAMES)


def surprises(findings: Findings) -> list[str]:
    """Controls that failed and damage that passed."""
    expected = dict.fromkeys(names(CONTROLS), True) | dict.fromkeys(names(DAMAGES), False)
    return [
        name for name, wanted in expected.items() if findings.verdicts.get(name, {}).get("passed", wanted) != wanted
    ]


def find(rows: Rows) -> Findings:
    """Every figure of the measurements there are."""
    counts = count(rows)
    judged = [name for name in names((*CONTROLS, *DAMAGES, *PROBES)) if counts.get(name, 0) > 1]
    return Findings(
        figures={name: _figures(rows, name, range(n)) for name, n in counts.items()},
        spectra={name: _spectrum(rows, name, range(counts[name])) for name in SPECTRA if name in counts},
        verdicts={name: verdict(rows, name, counts[name]).to_json() for name in judged},
    )


def count(rows: Rows) -> dict[str, int]:
    """Variant → its cases, which are the first so many."""
    return {name: 1 + max(number for other, number in rows if other == name) for name, _ in rows}


def _figures(rows: Rows, name: str, numbers: Iterable[int]) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    own = {number: rows[name, number] for number in numbers}
    left_out = _SERIES if name in _DETAILED else (*_SERIES, *_DETAILS)
    for metric in dict.fromkeys(metric for values in own.values() for metric in values):
        if metric.startswith(left_out):
            continue
        known = {number: values[metric] for number, values in own.items() if values.get(metric) is not None}
        if not known:
            continue
        single = all(isinstance(value, bool) for value in known.values())
        found_values = list(known.values())
        limits = (0.0, 1.0) if metric in SHARES else ()
        figure = proportion(found_values) if single else estimate(found_values, *limits)
        found[metric] = _rounded(figure.to_json())
        base = {number: rows[EXACT, number].get(metric) for number in known if (EXACT, number) in rows}
        if name != EXACT and metric not in NO_CHANGE and len(base) == len(known) and None not in base.values():
            compare = paired_proportions if single else paired_difference
            change = compare(found_values, [rows[EXACT, number][metric] for number in known])
            found[metric]["change"] = _rounded(change.to_json())
    return found | _fid(list(own.values()))


def _fid(own: list[Values]) -> dict[str, dict[str, Any]]:
    """Between the faces of all videos and those of all portraits; nothing where these are too few."""
    seen = [np.asarray(values["face_features"], np.float64) for values in own if "face_features" in values]
    if not seen:
        return {}
    faces = np.concatenate(seen)
    try:
        distance = frechet_distance(faces, [values["portrait_features"] for values in own])
    except TooFewSamples:
        return {}
    return {"fid": _rounded(Estimate(distance, None, None, len(faces)).to_json())}


def _spectrum(rows: Rows, name: str, numbers: Iterable[int]) -> list[float]:
    levels = [rows[name, number]["spectrum"] for number in numbers if "spectrum" in rows[name, number]]
    return [round(float(level), _DIGITS) for level in np.mean(levels, axis=0)]


def _rounded(figure: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, _DIGITS) if isinstance(value, float) else value for name, value in figure.items()}
