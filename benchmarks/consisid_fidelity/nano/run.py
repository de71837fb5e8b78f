"""Makes and measures videos case by case, in several processes; what is measured once is not measured again."""

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
from consisid_fidelity.nano.observe import Observer, Values
from consisid_fidelity.nano.set import case
from consisid_fidelity.nano.variants import EXACT, VARIANTS
from consisid_fidelity.nano.worker import Subject, Worker, gallery, start, work
from consisid_runtime.bundle import Bundle, sha256
from consisid_runtime.errors import InvalidOption
from consisid_runtime.events import Progress

Rows = dict[tuple[str, int], Values]
"""(variant, case's number) → what was measured."""

_ROWS = "rows.jsonl"


class Workbench:
    """A folder of measurements. Those of another bundle, other judges or other code lie in another sub-folder.

    Of two that measure into the same sub-folder, the second waits and then finds what the first has measured.

    Args:
        subject: what is examined.
        folder: anything; made when it is not there.

    Raises `InvalidOption` where the bundle was not made from the checkpoint.
    """

    def __init__(self, subject: Subject, folder: Path) -> None:
        self.subject, self.digests = subject, subject.digests()
        settings = {"options": asdict(subject.options), "gallery": subject.gallery, "frames": subject.frames}
        key = hashlib.sha256(json.dumps([self.digests, settings], sort_keys=True).encode()).hexdigest()[:16]
        self.folder = folder / key
        self.folder.mkdir(parents=True, exist_ok=True)
        _require_made_from(subject)

    def rows(self) -> Rows:
        """Everything measured so far; a line that was cut off by a crash counts as not measured."""
        found: Rows = {}
        if (self.folder / _ROWS).is_file():
            for line in (self.folder / _ROWS).read_text().splitlines():
                try:
                    row = json.loads(line)
                except ValueError:
                    continue
                found[row["variant"], row["case"]] = row["values"]
        return found

    def run(self, wanted: Mapping[str, int], processes: int, progress: Progress | None = None) -> Rows:
        """Measure the first so many cases of each variant.

        Args:
            wanted: variant → number of cases.
            processes: side by side, one thread each; 1 stays in this one.
            progress: called with (case, parts done, parts in all); a part is a case's videos with one reference.

        Returns what was wanted, and nothing else. Raises what making and judging raises; finished parts are kept.
        """
        with (self.folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            return self._run(wanted, processes, progress)

    def _run(self, wanted: Mapping[str, int], processes: int, progress: Progress | None) -> Rows:
        done = self.rows()
        counts = _with_references(wanted)
        tasks: list[tuple[int, list[str]]] = []
        for number in range(max(counts.values(), default=0)):
            missing = [name for name, count in counts.items() if number < count and (name, number) not in done]
            tasks += [(number, group) for group in _compared(missing)]
        with (self.folder / _ROWS).open("a") as file:
            if file.tell():
                file.write("\n")  # the line before may have been cut off
            for finished, found in enumerate(self._measured(tasks, processes), 1):
                file.writelines(json.dumps(row, allow_nan=False) + "\n" for row in found)
                file.flush()
                done |= {(row["variant"], row["case"]): row["values"] for row in found}
                if progress:
                    progress(case(found[0]["case"]).name, finished, len(tasks))
        return {(name, number): done[name, number] for name, count in wanted.items() for number in range(count)}

    def _measured(self, tasks: Sequence[tuple[int, list[str]]], processes: int) -> Iterator[list[dict[str, Any]]]:
        if not tasks:
            return
        if processes == 1:
            before = torch.get_num_threads()
            worker = Worker(self.subject, self.folder)
            try:
                for task in tasks:
                    yield worker(*task)
            finally:
                torch.set_num_threads(before)
            return
        gallery(Observer(self.subject.judges, self.subject.frames), self.subject, self.folder)
        context = get_context("spawn")
        with ProcessPoolExecutor(processes, context, start, (self.subject, self.folder)) as pool:
            waiting = [pool.submit(work, *task) for task in tasks]
            try:
                for finished in as_completed(waiting):
                    yield finished.result()
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _compared(names: Sequence[str]) -> list[list[str]]:
    """The same names; what is compared with the same video stays together."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(VARIANTS[name].reference if name in VARIANTS else EXACT, []).append(name)
    return list(groups.values())


def _with_references(wanted: Mapping[str, int]) -> dict[str, int]:
    """The same and, before them, at least as many cases of what they are compared with."""
    counts: dict[str, int] = {}
    for name, count in wanted.items():
        if name in VARIANTS:
            reference = VARIANTS[name].reference
            counts[reference] = max(count, counts.get(reference, 0))
    return counts | {name: max(count, counts.get(name, 0)) for name, count in wanted.items()}


def _require_made_from(subject: Subject) -> None:
    made_from = Bundle.open(subject.bundle, device="cpu").manifest["checkpoint"]
    checkpoint = Checkpoint.open(subject.checkpoint)
    found = {str(path.relative_to(checkpoint.path)): sha256(path) for path in checkpoint.files()}
    if found != made_from:
        different = sorted(name for name in {*found, *made_from} if found.get(name) != made_from.get(name))
        raise InvalidOption(
            f"{subject.bundle} was not made from {subject.checkpoint}: {', '.join(different)} differ; give the "
            "checkpoint it was exported from"
        )
