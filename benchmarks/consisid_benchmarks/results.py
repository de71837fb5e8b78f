"""Reads every record below a root and finds those that are stale."""

from __future__ import annotations

from pathlib import Path

from consisid_benchmarks import stale
from consisid_benchmarks.predict import record as predicted
from consisid_benchmarks.stale import Stale
from consisid_benchmarks.tables import RESULTS
from consisid_fidelity.nano import record as nano_record
from consisid_fidelity.nano.record import NanoRecord
from consisid_measurement import proof
from consisid_measurement.proof import Proof
from consisid_measurement.record import Record, read

_OTHERS = (proof.FOLDER, predicted.FOLDER)

AnyRecord = Record | NanoRecord | Proof


class Results:
    """The records below a root. Raises `ValueError` naming the file among the results that is no record.

    Attributes:
        records, people, proofs: those of suites, of the experiments with drawn people, of `make proof`.
        predictions: device → what was predicted for it; derived from budgets, never measured.
        stale: those that do not belong to the present source files.
    """

    def __init__(self, root: Path) -> None:
        paths = sorted(path for path in (root / RESULTS).glob("*/*.json") if path.parent.name not in _OTHERS)
        self.people = [nano_record.read(path) for path in paths if path.stem == nano_record.SUITE]
        self.records = [read(path) for path in paths if path.stem != nano_record.SUITE]
        self.proofs = [Proof.read(path) for path in sorted((root / RESULTS / proof.FOLDER).glob("*.json"))]
        self.predictions = predicted.read_all(root / RESULTS)
        everything: list[AnyRecord] = [*self.records, *self.people, *self.proofs]
        reasons = [(each, stale.reason(root, each.sources)) for each in everything]
        self.stale = [Stale(_path(each), each.commit, why, _command(each)) for each, why in reasons if why]

    def stale_of(self, record: AnyRecord) -> Stale | None:
        """The entry of a record in `stale`; None if it is current."""
        return next((each for each in self.stale if each.record == _path(record)), None)


def _path(record: AnyRecord) -> str:
    if isinstance(record, Proof):
        return (RESULTS / proof.FOLDER / record.path.name).as_posix()
    return (RESULTS / record.machine.name / f"{_suite(record)}.json").as_posix()


def _command(record: AnyRecord) -> str:
    if isinstance(record, Proof):
        return f"pytest -m proof {record.sources.entry[0]}" if record.sources else "make proof"
    return stale.command(_suite(record))


def _suite(record: Record | NanoRecord) -> str:
    return record.suite if isinstance(record, Record) else nano_record.SUITE
