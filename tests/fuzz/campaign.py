"""Runs cases in a process of their own and says what became of them."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from case_kinds import KINDS

SECONDS = 2.0
"""Of CPU time, the bound of a case."""
SOURCES = sorted(Path(__file__).parent.glob("*.py"))
"""What a record of cases depends on."""
_BLOCK = 1000
"""Cases of a trial in a record."""
_PATIENCE = 120.0
"""Seconds until a case that does not come back counts as one that hangs."""


@dataclass(slots=True)
class Result:
    """What became of some cases of a kind.

    Attributes:
        outcomes: "ok" or an error's code → cases.
        slowest: CPU seconds of the slowest.
        most: bytes that the hungriest took.
        findings: number of a case → what should not be.
    """

    outcomes: Counter[str] = field(default_factory=Counter)
    slowest: float = 0.0
    most: int = 0
    findings: dict[int, str] = field(default_factory=dict)

    def add(self, number: int, found: dict[str, Any], memory: int) -> None:
        self.outcomes[found["outcome"]] += 1
        self.slowest, self.most = max(self.slowest, found["seconds"]), max(self.most, found["bytes"])
        finding = found["finding"]
        if finding is None and found["seconds"] > SECONDS:
            finding = f"it took {found['seconds']:.1f} s"
        if finding is None and found["bytes"] > memory:
            finding = f"it took {found['bytes'] / 2**20:.0f} MiB"
        if finding is not None:
            self.findings[number] = finding

    def to_json(self) -> dict[str, Any]:
        return {
            "cases": self.outcomes.total(),
            "outcomes": dict(sorted(self.outcomes.items())),
            "slowest_seconds": round(self.slowest, 2),
            "most_mebibytes": round(self.most / 2**20, 1),
        }


class Campaign:
    """Cases, in a worker that is started again where one ends it.

    Args:
        places: the worker's environment variables of `case_worker`, where cases need them.
    """

    def __init__(self, **places: str) -> None:
        self._places = places
        self._worker: subprocess.Popen[str] | None = None
        self._printed = tempfile.TemporaryFile("w+", errors="replace")  # noqa: SIM115  closed with this object

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()
        self._printed.close()

    def run(self, kind: str, numbers: Iterable[int]) -> Result:
        result = Result()
        for number in numbers:
            result.add(number, self._one(kind, number), KINDS[kind].memory)
        return result

    def prove(self, kind: str, record: Any) -> dict[int, str]:
        """Run all cases of a kind but for the blocks that the record has, and record those without findings.

        Returns the findings of the first block that has any.
        """
        for start in range(0, KINDS[kind].cases, _BLOCK):
            name = f"{kind} {start}"
            if name not in record.trials:
                result = self.run(kind, range(start, min(start + _BLOCK, KINDS[kind].cases)))
                if result.findings:
                    return result.findings
                record.record(name, **result.to_json())
        return {}

    def _one(self, kind: str, number: int) -> dict[str, Any]:
        if self._worker is None:
            self._worker = self._start()
        worker = self._worker
        assert worker.stdin and worker.stdout
        worker.stdin.write(f"{kind} {number}\n")
        worker.stdin.flush()
        ready, _, _ = select.select([worker.stdout], [], [], _PATIENCE)
        line = worker.stdout.readline() if ready else ""
        if line:
            found: dict[str, Any] = json.loads(line)
            return found
        if not ready:
            worker.kill()
        status = worker.wait()
        self._end()
        self._printed.seek(0)
        what = f"ended with {status}" if ready else f"hung for {_PATIENCE:g} s"
        return {"outcome": what, "seconds": 0.0, "bytes": 0, "finding": f"{what}\n{self._printed.read()[-3000:]}"}

    def _start(self) -> subprocess.Popen[str]:
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        command = [sys.executable, "-X", "faulthandler", str(Path(__file__).with_name("case_worker.py"))]
        environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **self._places}
        self._printed.truncate(0)
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            text=True,
            env=environment,
        )

    def _end(self) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
            worker.wait()
            for pipe in (worker.stdin, worker.stdout):
                if pipe is not None:
                    pipe.close()
