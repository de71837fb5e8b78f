"""The record of a proof: a test too long for `make test`, whose trials are recorded instead of repeated."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from consisid_measurement import environment
from consisid_measurement.sources import Sources
from consisid_runtime.files.atomic import write_file

FOLDER = "proof"
"""Below benchmarks/results."""


@dataclass(frozen=True, slots=True)
class Proof:
    """`results/proof/NAME.json`.

    Attributes:
        sources: the source files that all trials ran with; None in a record from before these were digested.
        commit: that of the latest trial, as `environment.commit` gives it; None in such a record.
        trials: name → what it found, "test" (its function's name) and "when" (UTC, ISO 8601, seconds).
        test: the function that records now; not in the file.
    """

    path: Path
    sources: Sources | None = None
    commit: str | None = None
    trials: dict[str, dict[str, Any]] = field(default_factory=dict)
    test: str = ""

    @classmethod
    def read(cls, path: Path) -> Proof:
        """The record in a file. Raises `ValueError` naming the file if it is malformed."""
        try:
            data = json.loads(path.read_bytes())
            return cls(path, **{**data, "sources": Sources.from_json(data.get("sources"))})
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ValueError(f"{path}: not the record of a proof: {error}") from error

    @classmethod
    def resume(cls, path: Path, root: Path, entry: Iterable[Path | str], test: str) -> Proof:
        """The record to add trials to: it has those of the file, unless these are of other source files."""
        sources = Sources.of(root, entry)
        known = cls.read(path) if path.is_file() else cls(path)
        return cls(path, sources, environment.commit(root), known.trials if known.sources == sources else {}, test)

    def record(self, trial: str, **found: Any) -> None:
        """Adds a trial and writes the file atomically. Raises `OutputUnwritable`."""
        self.trials[trial] = {"test": self.test, **found, "when": environment.now()}
        data = {name: value for name, value in asdict(self).items() if name not in ("path", "test")}
        write_file(self.path, json.dumps(data, indent=1, allow_nan=False).encode() + b"\n", parents=True)
