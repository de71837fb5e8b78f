"""Generates and measures videos case by case in several processes; resumable, each measurement is stored once."""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_fidelity.nano.evaluation_set import case
from consisid_fidelity.nano.measure import Measurements, Measurer
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_fidelity.nano.variants import EXACT, VARIANTS
from consisid_fidelity.nano.worker import Worker, load_gallery, measure_case, start_worker
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import InvalidOption
from consisid_runtime.events import Progress
from consisid_runtime.files.atomic import require_folder
from consisid_runtime.files.ownership import sha256

Results = dict[tuple[str, int], Measurements]
"""(variant, number of the case) → its measurements."""

_RESULTS = "results.jsonl"


class ExperimentRun:
    """The measurements of one setup, stored in a sub-folder named by the setup's digests.

    A lock serialises processes that measure the same setup; the later one reuses the results of the earlier one.

    Args:
        setup: what is measured.
        folder: parent of the sub-folders; created when missing.

    Raises `InvalidOption` when the bundle was not made from the checkpoint, `OutputUnwritable`.
    """

    def __init__(self, setup: ExperimentSetup, folder: Path) -> None:
        self.setup, self.digests = setup, setup.digests()
        settings = {"options": asdict(setup.options), "gallery": setup.gallery, "frames": setup.frames}
        key = hashlib.sha256(json.dumps([self.digests, settings], sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / key
        require_folder(self.folder)
        _require_made_from(setup)

    def measured(self) -> Results:
        """All stored measurements. A line truncated by a crash counts as not measured."""
        found: Results = {}
        if (self.folder / _RESULTS).is_file():
            for line in (self.folder / _RESULTS).read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                found[row["variant"], row["case"]] = row["values"]
        return found

    def measure(self, wanted: Mapping[str, int], processes: int, progress: Progress | None = None) -> Results:
        """Measure those of the wanted cases that are not stored yet.

        Args:
            wanted: variant → number of cases, counted from case 0.
            processes: worker processes, one thread each; 1 measures in this process.
            progress: called with (case, tasks done, all tasks); a task is a case's videos with the same reference.

        Returns the wanted measurements only. Raises what generating and judging raise; finished tasks stay stored.
        """
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._measure(wanted, processes, progress)

    def _measure(self, wanted: Mapping[str, int], processes: int, progress: Progress | None) -> Results:
        done = self.measured()
        counts = _with_references(wanted)
        tasks: list[tuple[int, list[str]]] = []
        for number in range(max(counts.values(), default=0)):
            missing = [name for name, count in counts.items() if number < count and (name, number) not in done]
            tasks += [(number, group) for group in _grouped_by_reference(missing)]
        with (self.folder / _RESULTS).open("a") as file:
            if file.tell():
                file.write("\n")  # the last line may be truncated
            for finished, found in enumerate(self._completed(tasks, processes), 1):
                file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in found)
                file.flush()
                done |= {(row["variant"], row["case"]): row["values"] for row in found}
                if progress:
                    progress(case(found[0]["case"]).name, finished, len(tasks))
        return {(name, number): done[name, number] for name, count in wanted.items() for number in range(count)}

    def _completed(self, tasks: Sequence[tuple[int, list[str]]], processes: int) -> Iterator[list[dict[str, Any]]]:
        if not tasks:
            return
        if processes == 1:
            before = torch.get_num_threads()
            worker = Worker(self.setup, self.folder)
            try:
                for task in tasks:
                    yield worker(*task)
            finally:
                torch.set_num_threads(before)
            return
        load_gallery(Measurer(self.setup.judges, self.setup.frames), self.setup, self.folder)
        context = get_context("spawn")
        with ProcessPoolExecutor(processes, context, start_worker, (self.setup, self.folder)) as pool:
            waiting = [pool.submit(measure_case, *task) for task in tasks]
            try:
                for finished in as_completed(waiting):
                    yield finished.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _grouped_by_reference(names: Sequence[str]) -> list[list[str]]:
    """Variants grouped by the reference that they are compared with."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(VARIANTS[name].reference if name in VARIANTS else EXACT, []).append(name)
    return list(groups.values())


def _with_references(wanted: Mapping[str, int]) -> dict[str, int]:
    """The wanted counts, preceded by at least as many cases of each reference variant."""
    counts: dict[str, int] = {}
    for name, count in wanted.items():
        if name in VARIANTS:
            reference = VARIANTS[name].reference
            counts[reference] = max(count, counts.get(reference, 0))
    return counts | {name: max(count, counts.get(name, 0)) for name, count in wanted.items()}


def _require_made_from(setup: ExperimentSetup) -> None:
    made_from = Bundle.open(setup.bundle, device="cpu").manifest["checkpoint"]
    checkpoint = Checkpoint.open(setup.checkpoint)
    found = {str(path.relative_to(checkpoint.path)): sha256(path) for path in checkpoint.files()}
    if found != made_from:
        different = sorted(name for name in {*found, *made_from} if found.get(name) != made_from.get(name))
        raise InvalidOption(
            f"{setup.bundle} was not made from {setup.checkpoint}: {', '.join(different)} differ; give the "
            "checkpoint it was exported from"
        )
