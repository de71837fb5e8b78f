"""Samples of a load → the rows and curves of a record."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence

from consisid_benchmarks.suites.serving.load import OK, Sample
from consisid_measurement.record import OURS, Row, Series

PERCENTILES = (50, 90, 99)
LATENCY, SHARE = "latency_seconds", "requests_percent"


def percentile(values: Sequence[float], percent: float) -> float:
    """The least of the values that so many percent of them do not exceed: one that was measured, never one between.

    Raises `ValueError` without values.
    """
    if not values:
        raise ValueError("no values have no percentile")
    return sorted(values)[max(0, math.ceil(percent / 100 * len(values)) - 1)]


def single(case: str, metric: str, value: float) -> Row:
    """The row of a figure that a run gives once."""
    return Row(case, OURS, metric, value, value, value, 1)


def load_rows(case: str, samples: Sequence[Sample]) -> list[Row]:
    """Latencies are those of the videos, first events those of all requests that had one; every error is counted."""
    done = [sample for sample in samples if sample.code == OK]
    firsts = [sample.first - sample.planned for sample in samples if sample.first is not None]
    figures: dict[str, float] = {"requests_count": len(samples)}
    figures |= {f"{code.lower()}_count": count for code, count in _errors(samples).items()}
    if done:
        latencies = [sample.latency for sample in done]
        figures |= {f"latency_p{percent}_seconds": percentile(latencies, percent) for percent in PERCENTILES}
        # All requests have ended at the last of these moments, so that none is half counted.
        figures["videos_per_second"] = len(done) / max(sample.ended for sample in samples)
        told, wanted = (sum(getattr(sample, name) for sample in done) for name in ("steps", "steps_wanted"))
        figures["steps_told_percent"] = 100 * told / wanted
    if firsts:
        figures |= {f"first_event_p{percent}_seconds": percentile(firsts, percent) for percent in (50, 99)}
    return [single(case, metric, value) for metric, value in figures.items()]


def latency_curve(case: str, samples: Sequence[Sample]) -> Series:
    """Which share of all requests had its video after so many seconds; the curve of who was refused ends lower."""
    latencies = sorted(sample.latency for sample in samples if sample.code == OK)
    share = 100 / len(samples)
    points = tuple((round(seconds, 4), round(share * count, 2)) for count, seconds in enumerate(latencies, start=1))
    return Series(case, SHARE, LATENCY, points)


def _errors(samples: Sequence[Sample]) -> dict[str, int]:
    """Code → how many; `BUSY` also where nobody was refused."""
    found = Counter(sample.code for sample in samples if sample.code != OK)
    return {"BUSY": 0} | dict(sorted(found.items()))
