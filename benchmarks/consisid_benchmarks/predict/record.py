"""The predictions on disk, `results/predicted/DEVICE.json`, and their comparison with a GPU's own record."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from consisid_measurement.record import OURS, Record
from consisid_runtime.files.atomic import write_file

FOLDER = "predicted"
"""Below benchmarks/results, apart from everything that was measured."""
MEASURED = "stages"
"""The suite whose record a prediction is compared with: a row for each stage, named as in the prediction."""
TOLERANCE = 0.15
_KIND = "predicted"


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


def deviations(found: Mapping[str, Any], device: str, records: Iterable[Record]) -> Iterator[str]:
    """A sentence for every stage that took or held over 15 % more or less on this GPU than predicted."""
    for record in records:
        if record.suite != MEASURED or record.machine.name != device:
            continue
        for row in record.rows:
            if row.variant != OURS or row.case not in found["stages"]:
                continue
            stage = found["stages"][row.case]
            predicted = {"stage_seconds": stage["seconds"]["likely"], "peak_bytes": stage["peak_bytes"]}.get(row.metric)
            if predicted and abs(row.median / predicted - 1) > TOLERANCE:
                yield f"{row.case}, `{row.metric}`: measured {row.median:.3g}, {row.median / predicted:.2f} × predicted"
