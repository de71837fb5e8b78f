"""The predictions on disk, `results/predicted/DEVICE.json`, and their comparison with a GPU's own records.

DEVICE is a key of `ceilings.DEVICES`, or MACHINE-measured for the ceilings that a machine's record has.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from consisid_benchmarks.predict.ceilings import Device, measured
from consisid_benchmarks.predict.graph import graphs
from consisid_benchmarks.predict.seconds import predict
from consisid_benchmarks.predict.skipping import nano_curve, tiers
from consisid_measurement.record import OURS, Record, Row
from consisid_runtime.files.atomic import write_file

FOLDER = "predicted"
"""Below benchmarks/results, apart from everything that was measured."""
MEASURED = "stages"
"""The suite whose record a prediction is compared with: a row for each stage, named as in the prediction."""
WHOLE = "whole"
"""The suite whose record the prediction of a request is compared with."""
SUFFIX = "-measured"
"""Of the name of a prediction from a record's own ceilings."""
TOLERANCE = 0.15
_KIND = "predicted"


def make(budget: Mapping[str, Any], device: Device) -> dict[str, Any]:
    """The record of a prediction, from the budgets of every case."""
    found = predict(budget["full"], device)
    return {**found, "tiers": tiers(found["fp8"], nano_curve()), "graphs": graphs(budget, device)}


def write(results: Path, device: str, found: Mapping[str, Any]) -> Path:
    """Raises `OutputUnwritable`."""
    path = results / FOLDER / f"{device}.json"
    write_file(path, json.dumps(found, indent=1, allow_nan=False).encode() + b"\n", parents=True)
    return path


def read_all(results: Path) -> dict[str, dict[str, Any]]:
    """Device → its prediction. Raises `ValueError` naming a file that is none."""
    found = {}
    for path in sorted((results / FOLDER).glob("*.json")):
        data = json.loads(path.read_bytes())
        if data.get("kind") != _KIND:
            raise ValueError(f"{path}: not a prediction")
        found[path.stem] = data
    return found


def from_measured(budget: Mapping[str, Any], records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """Name → the prediction from the ceilings of each record of `MEASURED` that has them."""
    devices = {record.machine.name: measured(record) for record in records if record.suite == MEASURED}
    return {f"{machine}{SUFFIX}": make(budget, device) for machine, device in devices.items() if device}


def deviations(found: Mapping[str, Any], name: str, records: Iterable[Record]) -> Iterator[str]:
    """A sentence for all that took or held over 15 % more or less on this GPU than predicted under `name`."""
    for record in records:
        if record.suite not in (MEASURED, WHOLE) or record.machine.name != name.removesuffix(SUFFIX):
            continue
        for row in record.rows:
            predicted = _predicted(found, row) if row.variant == OURS else None
            if predicted and abs(row.median / predicted - 1) > TOLERANCE:
                yield f"{row.case}, `{row.metric}`: measured {row.median:.3g}, {row.median / predicted:.2f} × predicted"


def _predicted(found: Mapping[str, Any], row: Row) -> float | None:
    stages = found["stages"] | found["fp8"]["stages"]
    if row.case in stages:
        stage = stages[row.case]
        known = {"stage_seconds": stage["seconds"]["likely"], "peak_bytes": stage["peak_bytes"]}
    elif row.case.startswith("request/"):
        seconds = found["request"]["seconds"]["likely"]
        known = {"total_seconds": seconds, "extrapolated_seconds": seconds}
        known["peak_bytes"] = found["request"]["resident_bytes"]
    else:
        known = {}
    return known.get(row.metric)
