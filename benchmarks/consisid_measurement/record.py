"""The record of a suite: every measured row, the machine, versions and source files, and its gate."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from consisid_measurement.sources import Sources
from consisid_runtime.files.atomic import write_file

OURS = "ours"
UNITS = ("seconds", "bytes", "gbps", "tflops", "per_second", "percent", "ratio", "db", "joules", "count")
_NAME = re.compile(r"[a-z0-9][a-z0-9._-]*")


@dataclass(frozen=True, slots=True)
class Gate:
    """The test that had to pass before anything was measured, relative to the repository's root."""

    test: str
    passed: bool


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine measured. `name` is neutral, such as "cpu-2core" or "h200", and a folder of benchmarks/results."""

    name: str
    cpu: str
    cores: int
    memory_gib: int
    gpu: str | None

    def __post_init__(self) -> None:
        _require_name("machine", self.name)


@dataclass(frozen=True, slots=True)
class Row:
    """One metric of one variant in one case: median and 20/80 % quantiles over `n` samples.

    `variant` is "ours", "ours/<tier>" or a peer's name; `metric` ends in its unit, one of `UNITS`.
    """

    case: str
    variant: str
    metric: str
    median: float
    p20: float
    p80: float
    n: int

    def __post_init__(self) -> None:
        unit(self.metric)
        if self.n < 1:
            raise ValueError(f"{self.variant}, {self.metric}: a row needs at least one sample, got n = {self.n}")
        if not all(math.isfinite(value) for value in (self.median, self.p20, self.p80)):
            raise ValueError(f"{self.variant}, {self.metric}: not finite: {self.p20}, {self.median}, {self.p80}")
        if not self.p20 <= self.median <= self.p80:
            raise ValueError(f"{self.variant}, {self.metric}: not ordered: {self.p20}, {self.median}, {self.p80}")


@dataclass(frozen=True, slots=True)
class Series:
    """A curve of a case: `metric` over another one, both ending in their unit. Raises `ValueError` without points."""

    case: str
    metric: str
    over: str
    points: tuple[tuple[float, float], ...]

    def __post_init__(self) -> None:
        unit(self.metric)
        unit(self.over)
        if not self.points or not all(len(point) == 2 and all(map(math.isfinite, point)) for point in self.points):
            raise ValueError(f"{self.case}, {self.metric}: a curve needs points of two finite numbers each")

    def to_json(self) -> dict[str, Any]:
        return asdict(self) | {"points": [list(point) for point in self.points]}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Series:
        """Inverts `to_json`. Raises `ValueError`, `KeyError` or `TypeError` for what is no curve."""
        return cls(**{**data, "points": tuple((x, y) for x, y in data["points"])})


@dataclass(frozen=True, slots=True)
class Record:
    """A suite on one machine. Raises `ValueError` for rows together with a gate that failed.

    Attributes:
        versions: package → version, of the libraries measured.
        commit: as `environment.commit` gives it.
        when: UTC, ISO 8601, seconds.
        ceilings: the machine's speed at simple operations, measured in the same run; None where it was not measured.
        sources: the source files measured; None in a record from before these were digested.
        series: curves, for the plots.
    """

    suite: str
    gate: Gate
    machine: Machine
    versions: dict[str, str]
    commit: str
    when: str
    ceilings: dict[str, float | None]
    sources: Sources | None
    rows: tuple[Row, ...]
    series: tuple[Series, ...] = ()

    def __post_init__(self) -> None:
        _require_name("suite", self.suite)
        if self.rows and not self.gate.passed:
            raise ValueError(f"{self.suite}: {self.gate.test} failed, so there can be no rows, got {len(self.rows)}")

    def to_json(self) -> dict[str, Any]:
        rows, series = [asdict(row) for row in self.rows], [each.to_json() for each in self.series]
        return asdict(self) | {"rows": rows, "series": series}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Record:
        """Inverts `to_json`. Raises `ValueError` for anything missing, unknown or malformed."""
        try:
            return cls(
                **{
                    **data,
                    "gate": Gate(**data["gate"]),
                    "machine": Machine(**data["machine"]),
                    "sources": Sources.from_json(data.get("sources")),
                    "rows": tuple(Row(**row) for row in data["rows"]),
                    "series": tuple(Series.from_json(each) for each in data.get("series", ())),
                }
            )
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a benchmark record: {error}") from error

    def write(self, results: Path) -> Path:
        """Writes `results/<machine>/<suite>.json` atomically; returns the path. Raises `OutputUnwritable`."""
        path = results / self.machine.name / f"{self.suite}.json"
        write_file(path, json.dumps(self.to_json(), indent=1, allow_nan=False).encode() + b"\n", parents=True)
        return path


def read(path: Path) -> Record:
    """The record in a file. Raises `ValueError` naming the file if it is malformed or does not belong at this path."""
    try:
        record = Record.from_json(json.loads(path.read_bytes()))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    if (record.machine.name, record.suite) != (path.parent.name, path.stem):
        raise ValueError(f"{path} holds suite {record.suite!r} of machine {record.machine.name!r}")
    return record


def relative(row: Row, rows: Iterable[Row]) -> float | None:
    """A row's median over that of `OURS` in the same case and metric; None for `OURS` itself, and without it."""
    key = (row.case, OURS, row.metric)
    ours = next((other for other in rows if (other.case, other.variant, other.metric) == key), None)
    return None if ours is None or ours == row or not ours.median else row.median / ours.median


def unit(metric: str) -> str:
    """The unit at the end of a metric's name. Raises `ValueError` naming the known units."""
    for known in UNITS:
        if metric == known or metric.endswith(f"_{known}"):
            return known
    raise ValueError(f"metric {metric!r} must end in its unit, one of {', '.join(UNITS)}")


def _require_name(what: str, name: str) -> None:
    if not _NAME.fullmatch(name):
        raise ValueError(f"{what} must be lower-case letters, digits, dots, dashes or underscores, got {name!r}")
