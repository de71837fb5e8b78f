"""The record of the nano experiments: where and of what they were made, and every figure."""

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
    """What the experiments come to.

    Attributes:
        figures: variant → metric → {"mean", "low", "high", "n"} and, where `exact` has it too, "change": the same of
            the paired difference to it. Shares have Wilson's interval, means Student's, changes Student's.
        spectra: variant → relative log amplitude of each frequency, mean over videos.
        verdicts: control, damage or probe → `Verdict.to_json`.
    """

    figures: dict[str, dict[str, dict[str, Any]]]
    spectra: dict[str, list[float]]
    verdicts: dict[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class NanoRecord:
    """`results/<machine>/fidelity.json`.

    It is no `Record`: that one holds medians and quantiles of repeated runs, this one means over people with confidence
    intervals, and differences between pairs.

    Attributes:
        gate, machine, versions, commit, when: as a `Record` has them.
        settings: how many people, which options.
        digests: of the bundle, the judges and the measuring code.
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
        """Inverts `to_json`. Raises `ValueError` for anything missing, unknown or malformed."""
        try:
            fields = {name: value for name, value in data.items() if name != "suite"}
            fields |= {"gate": Gate(**data["gate"]), "machine": Machine(**data["machine"])}
            fields |= {"sources": Sources.from_json(data.get("sources"))}
            return cls(**fields | {"findings": Findings(**data["findings"])})
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a record of the nano experiments: {error}") from error

    def write(self, results: Path) -> Path:
        """Write it below `results` at once or not at all; returns the path. Raises `OutputUnwritable`."""
        path = results / self.machine.name / f"{SUITE}.json"
        write_file(path, json.dumps(self.to_json(), indent=1, allow_nan=False).encode() + b"\n", parents=True)
        return path


def read(path: Path) -> NanoRecord:
    """The record in a file. Raises `ValueError` naming the file when it is none, or lies where another belongs."""
    try:
        record = NanoRecord.from_json(json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if record.machine.name != path.parent.name:
        raise ValueError(f"{path} holds results of machine {record.machine.name!r}")
    return record
