"""Keeps what the parts of a run have measured, so that a run that was interrupted goes on behind its last part."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from consisid_measurement.record import Row, Series
from consisid_runtime.files.atomic import write_file

Figures = list[Row | Series]


class Parts:
    """Of one suite.

    Args:
        folder: of its own.
        setting: the source files that are measured, and how; what was measured in another setting is not taken.
    """

    def __init__(self, folder: Path, setting: str) -> None:
        self._folder, self._setting = folder, setting

    def run(self, name: str, work: Callable[[], Iterable[Row | Series]]) -> Figures:
        """What `work` returns, or returned in an earlier run. Raises `OutputUnwritable`."""
        path = self._folder / f"{name}.json"
        if (kept := self._read(path)) is not None:
            return kept
        found = list(work())
        rows = [asdict(each) for each in found if isinstance(each, Row)]
        series = [each.to_json() for each in found if isinstance(each, Series)]
        content = {"setting": self._setting, "rows": rows, "series": series}
        write_file(path, json.dumps(content).encode(), parents=True)
        return found

    def forget(self) -> None:
        """The run is over: the next one measures everything again."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _read(self, path: Path) -> Figures | None:
        """None where there are none of this setting."""
        if not path.is_file():
            return None
        content = json.loads(path.read_bytes())
        if content["setting"] != self._setting:
            return None
        return [*(Row(**row) for row in content["rows"]), *(Series.from_json(each) for each in content["series"])]
