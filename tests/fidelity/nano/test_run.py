from __future__ import annotations

import fcntl
import json
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from typing import Any

import pytest

from consisid_fidelity.nano import run
from consisid_fidelity.nano.run import ExperimentRun
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_nano.untrained.write import write_untrained
from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options

TASKS: list[tuple[int, list[str]]] = []


class FakeWorker:
    """A worker without networks, which records its tasks."""

    stop_at: int | None = None

    def __init__(self, setup: ExperimentSetup, folder: Path) -> None:
        pass

    def __call__(self, number: int, variants: Iterable[str]) -> list[dict[str, Any]]:
        if number == self.stop_at:
            raise KeyboardInterrupt
        TASKS.append((number, list(variants)))
        return [{"variant": name, "case": number, "values": {"facesim_arc": 0.5}} for name in variants]


@pytest.fixture
def setup(
    untrained: Path, torch_bundle_of: Callable[[], Path], judge_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> ExperimentSetup:
    TASKS.clear()
    monkeypatch.setattr(run, "Worker", FakeWorker)
    return ExperimentSetup(torch_bundle_of(), untrained, judge_folder)


def test_only_what_is_missing_is_measured(setup: ExperimentSetup, tmp_path: Path) -> None:
    wanted = {"exact": 2, "no-local": 1}
    found = ExperimentRun(setup, tmp_path).measure(wanted, 1)
    assert sorted(found) == [("exact", 0), ("exact", 1), ("no-local", 0)]
    assert TASKS == [(0, ["exact", "no-local"]), (1, ["exact"])]
    TASKS.clear()
    assert ExperimentRun(setup, tmp_path).measure(wanted | {"no-local": 2}, 1).keys() - found.keys() == {
        ("no-local", 1)
    }
    assert TASKS == [(1, ["no-local"])]


def test_the_reference_of_a_variant_is_generated_first(setup: ExperimentSetup, tmp_path: Path) -> None:
    found = ExperimentRun(setup, tmp_path).measure({"dpm-5-steps": 1, "8-bit-weights": 1, "ground-truth": 1}, 1)
    assert sorted(name for name, _ in found) == ["8-bit-weights", "dpm-5-steps", "ground-truth"]
    assert [set(names) for _, names in TASKS] == [
        {"dpm-200-steps", "dpm-5-steps"},
        {"exact", "8-bit-weights", "ground-truth"},
    ]


def test_an_interrupted_run_is_resumed(setup: ExperimentSetup, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(FakeWorker, "stop_at", 1)
    with pytest.raises(KeyboardInterrupt):
        ExperimentRun(setup, tmp_path).measure({"exact": 3}, 1)
    monkeypatch.setattr(FakeWorker, "stop_at", None)
    experiment = ExperimentRun(setup, tmp_path)
    with (experiment.folder / "results.jsonl").open("a") as file:
        file.write('{"variant": "exact", "case": 1, "val')
    assert sorted(experiment.measured()) == [("exact", 0)]
    assert len(experiment.measure({"exact": 3}, 1)) == 3
    assert [number for number, _ in TASKS] == [0, 1, 2]
    assert sorted(experiment.measured()) == [("exact", number) for number in range(3)]


def test_a_second_run_waits_and_reuses_the_results_of_the_first(setup: ExperimentSetup, tmp_path: Path) -> None:
    experiment = ExperimentRun(setup, tmp_path)
    with (experiment.folder / "lock").open("w") as lock, ThreadPoolExecutor(1) as pool:
        fcntl.flock(lock, fcntl.LOCK_EX)
        second = pool.submit(ExperimentRun(setup, tmp_path).measure, {"exact": 1}, 1)
        assert not wait([second], timeout=0.5).done
        row = {"variant": "exact", "case": 0, "values": {"facesim_arc": 0.25}}
        (experiment.folder / "results.jsonl").write_text(json.dumps(row) + "\n")
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert second.result(timeout=60) == {("exact", 0): {"facesim_arc": 0.25}}
    assert not TASKS


def test_other_options_and_judges_have_another_folder(
    setup: ExperimentSetup, judge_folder: Path, tmp_path: Path
) -> None:
    first = ExperimentRun(setup, tmp_path).folder
    assert ExperimentRun(setup, tmp_path).folder == first
    other = ExperimentSetup(setup.bundle, setup.checkpoint, judge_folder, Options(steps=7))
    assert ExperimentRun(other, tmp_path).folder != first
    (judge_folder / "person.json").write_text(json.dumps({}))
    try:
        assert ExperimentRun(setup, tmp_path).folder != first
    finally:
        (judge_folder / "person.json").unlink()


def test_a_bundle_of_another_checkpoint_is_refused(setup: ExperimentSetup, tmp_path: Path) -> None:
    write_untrained(tmp_path / "other", seed=1)
    with pytest.raises(InvalidOption, match=r"was not made from .*transformer"):
        ExperimentRun(ExperimentSetup(setup.bundle, tmp_path / "other", setup.judges), tmp_path / "work")
