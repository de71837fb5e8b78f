from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from consisid_fidelity.nano import run
from consisid_fidelity.nano.run import Workbench
from consisid_fidelity.nano.worker import Subject
from consisid_nano.untrained.write import write_untrained
from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options

ASKED: list[tuple[int, list[str]]] = []


class Counting:
    """Stands in for a worker: no network runs."""

    stop_at: int | None = None

    def __init__(self, subject: Subject, folder: Path) -> None:
        pass

    def __call__(self, number: int, variants: Iterable[str]) -> list[dict[str, Any]]:
        if number == self.stop_at:
            raise KeyboardInterrupt
        ASKED.append((number, list(variants)))
        return [{"variant": name, "case": number, "values": {"facesim_arc": 0.5}} for name in variants]


@pytest.fixture
def subject(
    untrained: Path, torch_bundle_of: Callable[[], Path], judge_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> Subject:
    ASKED.clear()
    monkeypatch.setattr(run, "Worker", Counting)
    return Subject(torch_bundle_of(), untrained, judge_folder)


def test_only_what_is_missing_is_measured(subject: Subject, tmp_path: Path) -> None:
    wanted = {"exact": 2, "no-local": 1}
    found = Workbench(subject, tmp_path).run(wanted, 1)
    assert sorted(found) == [("exact", 0), ("exact", 1), ("no-local", 0)]
    assert ASKED == [(0, ["exact", "no-local"]), (1, ["exact"])]
    ASKED.clear()
    assert Workbench(subject, tmp_path).run(wanted | {"no-local": 2}, 1).keys() - found.keys() == {("no-local", 1)}
    assert ASKED == [(1, ["no-local"])]


def test_what_a_variant_is_compared_with_is_made_before_it(subject: Subject, tmp_path: Path) -> None:
    found = Workbench(subject, tmp_path).run({"dpm-5-steps": 1, "8-bit-weights": 1, "ground-truth": 1}, 1)
    assert sorted(name for name, _ in found) == ["8-bit-weights", "dpm-5-steps", "ground-truth"]
    assert [set(names) for _, names in ASKED] == [
        {"dpm-200-steps", "dpm-5-steps"},
        {"exact", "8-bit-weights", "ground-truth"},
    ]


def test_a_run_that_was_stopped_goes_on(subject: Subject, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "stop_at", 1)
    with pytest.raises(KeyboardInterrupt):
        Workbench(subject, tmp_path).run({"exact": 3}, 1)
    monkeypatch.setattr(Counting, "stop_at", None)
    bench = Workbench(subject, tmp_path)
    with (bench.folder / "rows.jsonl").open("a") as file:
        file.write('{"variant": "exact", "case": 1, "val')
    assert sorted(bench.rows()) == [("exact", 0)]
    assert len(bench.run({"exact": 3}, 1)) == 3
    assert [number for number, _ in ASKED] == [0, 1, 2]
    assert sorted(bench.rows()) == [("exact", number) for number in range(3)]


def test_a_second_run_waits_and_finds_what_the_first_has_measured(subject: Subject, tmp_path: Path) -> None:
    bench = Workbench(subject, tmp_path)
    with (bench.folder / "lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(Workbench(subject, tmp_path).run, {"exact": 1}, 1)
        assert not wait([second], timeout=0.5).done
        row = {"variant": "exact", "case": 0, "values": {"facesim_arc": 0.25}}
        (bench.folder / "rows.jsonl").write_text(json.dumps(row) + "\n")
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert second.result(timeout=60) == {("exact", 0): {"facesim_arc": 0.25}}
    assert not ASKED


def test_other_options_and_judges_are_measured_anew(subject: Subject, judge_folder: Path, tmp_path: Path) -> None:
    first = Workbench(subject, tmp_path).folder
    assert Workbench(subject, tmp_path).folder == first
    other = Subject(subject.bundle, subject.checkpoint, judge_folder, Options(steps=7))
    assert Workbench(other, tmp_path).folder != first
    (judge_folder / "person.json").write_text(json.dumps({}))
    try:
        assert Workbench(subject, tmp_path).folder != first
    finally:
        (judge_folder / "person.json").unlink()


def test_a_bundle_of_another_checkpoint_is_refused(subject: Subject, tmp_path: Path) -> None:
    write_untrained(tmp_path / "other", seed=1)
    with pytest.raises(InvalidOption, match=r"was not made from .*transformer"):
        Workbench(Subject(subject.bundle, tmp_path / "other", subject.judges), tmp_path / "work")
