"""Runs a suite: its test as a gate, warm-up, interleaved runs of all variants, medians.

Variants run in turn in one process, so that other load on the machine affects all of them alike.
"""

from __future__ import annotations

import gc
import inspect
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from consisid_measurement import environment
from consisid_measurement.record import Gate, Machine, Record, Row, Series
from consisid_measurement.sources import Sources
from consisid_runtime.events import Progress


class Mismatch(Exception):
    """Variants that should give the same result gave different ones, so that their costs cannot be compared."""


@dataclass(frozen=True, slots=True)
class Arm:
    """One thing to measure. `run` does the work once and returns metric → value, times included.

    Arms may share a variant if their metrics differ.
    """

    variant: str
    run: Callable[[], Mapping[str, float]]


def interleave(
    case: str, arms: Sequence[Arm], *, rounds: int, warmup: int = 1, progress: Progress | None = None
) -> list[Row]:
    """Runs all arms in turn, `warmup` times without and then `rounds` times with keeping the values.

    Args:
        progress: called with (variant, done, total) before each run.

    Returns one row for each arm and metric, in the arms' order. Raises `ValueError` without rounds or arms, or when two
    arms report the same metric of the same variant.
    """
    if rounds < 1 or warmup < 0 or not arms:
        raise ValueError(f"need an arm, a round and no negative warm-up, got {len(arms)}, {rounds} and {warmup}")
    samples: list[dict[str, list[float]]] = [{} for _ in arms]
    total = (warmup + rounds) * len(arms)
    for turn in range(warmup + rounds):
        for index, arm in enumerate(arms):
            if progress:
                progress(arm.variant, turn * len(arms) + index, total)
            # Else one arm's garbage could be collected during another's run.
            gc.collect()
            measured = arm.run()
            if turn >= warmup:
                for metric, value in measured.items():
                    samples[index].setdefault(metric, []).append(value)
    rows = [
        summarise(case, arm.variant, metric, values)
        for arm, found in zip(arms, samples, strict=True)
        for metric, values in found.items()
    ]
    keys = [(row.variant, row.metric) for row in rows]
    if len(set(keys)) < len(keys):
        raise ValueError(f"two arms report the same metric: {sorted({key for key in keys if keys.count(key) > 1})}")
    return rows


def summarise(case: str, variant: str, metric: str, values: Sequence[float]) -> Row:
    """Median and 20/80 % quantiles, linearly interpolated between samples."""
    p20, middle, p80 = (float(value) for value in np.quantile(values, (0.2, 0.5, 0.8)))
    return Row(case, variant, metric, middle, p20, p80, len(values))


def passes(test: str, root: Path) -> bool:
    """Whether pytest passes on `test`, a path relative to `root`, without proofs.

    False for a missing file and for one whose tests are all skipped.
    """
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # -P keeps the root off sys.path, where its folder `kernels` would look like another project's package.
        command = [sys.executable, "-P", "-m", "pytest", "-q", test, "-m", "not proof", f"--junitxml={report}"]
        # A warning of a library's other version says nothing about what is measured.
        command += ["-p", "no:cacheprovider", "-o", "filterwarnings=default", *side_by_side(root / test)]
        done = subprocess.run(command, cwd=root, stdout=sys.stderr, check=False)
        if done.returncode != 0:
            return False
        suites = ElementTree.parse(report).getroot().iter("testsuite")
        return any(int(suite.get("tests", 0)) > int(suite.get("skipped", 0)) for suite in suites)


def side_by_side(test: Path) -> list[str]:
    """Options of pytest that run the files of a folder in several processes, where that is faster and can be done."""
    processes = min(8, environment.cores())
    if processes < 4 or not test.is_dir() or find_spec("xdist") is None:
        return []
    return ["-n", str(processes), "--dist", "loadfile"]


def run(
    suite: str,
    test: str,
    measure: Callable[[], Iterable[Row | Series]],
    *,
    root: Path,
    machine: Machine,
    packages: Iterable[str],
    ceilings: Callable[[], dict[str, float | None]],
) -> tuple[Record, str]:
    """Runs a suite's test and, if it passes, `measure`, a function in the suite's own file.

    Returns the record, and the reason why it has no rows, "" if it has.
    """
    sources = Sources.of(environment.checkout(), [inspect.getfile(measure)])
    reason = "" if passes(test, root) else f"{test} does not pass"
    found: tuple[Row | Series, ...] = ()
    bounds: dict[str, float | None] = {}
    if not reason:
        bounds = ceilings()
        try:
            found = tuple(measure())
        except Mismatch as error:
            reason = str(error)
    record = Record(
        suite=suite,
        gate=Gate(test, passed=not reason),
        machine=machine,
        versions=environment.versions(packages),
        commit=environment.commit(root),
        when=environment.now(),
        ceilings=bounds,
        sources=sources,
        rows=tuple(each for each in found if isinstance(each, Row)),
        series=tuple(each for each in found if isinstance(each, Series)),
    )
    return record, reason
