"""The record of the nano experiments: machine, versions, digests and every figure."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consisid_measurement.record import Gate, Machine
from consisid_measurement.sources import Sources
from consisid_runtime.files.atomic import write_file

SUITE = "fidelity"
ENTRY = (
    "benchmarks/consisid_fidelity/nano/run.py",
    "benchmarks/consisid_fidelity/nano/experiments.py",
    "nano/consisid_nano/package.py",
)
"""Files that make a record's figures; package.py names the trained weights and the judges."""


@dataclass(frozen=True, slots=True)
class Findings:
    """The summarised results of all experiments.

    Attributes:
        figures: variant → metric → {"mean", "low", "high", "n"} and, when `exact` has the metric too, "change": the
            same keys for the paired difference to it. Shares have Wilson's interval, means and changes Student's.
        spectra: variant → relative log amplitude of each frequency, mean over videos.
        verdicts: control, damage or probe → `Verdict.to_json`.
    """

    figures: dict[str, dict[str, dict[str, Any]]]
    spectra: dict[str, list[float]]
    verdicts: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NanoRecord:
    """`results/<machine>/fidelity.json`.

    Unlike `Record`, which holds medians and quantiles of repeated runs, it holds means over people with confidence
    intervals, and paired differences.

    Attributes:
        gate, machine, versions, commit, when: as in `Record`.
        settings: numbers of people and the options.
        digests: of the bundle, the judges and the measuring source code.
        findings: every figure.
        sources: the source files measured; None in a record from before these were digested.
    """

    gate: Gate
    machine: Machine
    versions: dict[str, str]
    commit: str
    when: str
    settings: dict[str, Any]
    digests: dict[str, Any]
    findings: Findings
    sources: Sources | None = None

    def to_json(self) -> dict[str, Any]:
        return {"suite": SUITE, **asdict(self)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> NanoRecord:
        """The inverse of `to_json`. Raises `ValueError` for missing, unknown or malformed content."""
        try:
            fields = {name: value for name, value in data.items() if name != "suite"}
            fields |= {"gate": Gate(**data["gate"]), "machine": Machine(**data["machine"])}
            fields |= {"sources": Sources.from_json(data.get("sources"))}
            return cls(**fields | {"findings": Findings(**data["findings"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record of the nano experiments: {error}") from error

    def write(self, results: Path) -> Path:
        """Write it atomically below `results`; returns the path. Raises `OutputUnwritable`."""
        path = results / self.machine.name / f"{SUITE}.json"
        write_file(path, json.dumps(self.to_json(), indent=1, allow_nan=False).encode() + b"\n", parents=True)
        return path


def read(path: Path) -> NanoRecord:
    """Read a record. Raises `ValueError`, naming the file, for invalid content or a folder of another machine."""
    try:
        record = NanoRecord.from_json(json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if record.machine.name != path.parent.name:
        raise ValueError(f"{path} holds results of machine {record.machine.name!r}")
    return record
