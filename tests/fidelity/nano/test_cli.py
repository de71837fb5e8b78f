import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from typer.testing import CliRunner

import consisid_nano
from consisid_fidelity import verdict
from consisid_fidelity.nano import cli, run
from consisid_fidelity.nano.cli import COMMAND, command, gate_command
from consisid_fidelity.nano.record import read
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_measurement import harness
from consisid_runtime.errors import MissingExtra, NotFinite

GOOD: dict[str, Any] = {"facesim_arc": 0.8, "prompt_accuracy": 1.0, "faces_found": 1.0, "flicker": 3.0, "rank1": True}
NEAR = {"latents": 0.01, "psnr": 45.0, "clip_distance": 0.001}


class FakeRun:
    """An `ExperimentRun` without networks: damage is far from the reference, everything else near."""

    caught = True

    def __init__(self, setup: ExperimentSetup, folder: Path) -> None:
        self.digests = {"bundle": "f" * 64, "judges": {}, "code": ""}

    def measure(self, wanted: dict[str, int], processes: int, progress: Any) -> run.Results:
        near = NEAR if not self.caught else NEAR | {"latents": 0.5}
        harmless = ("exact", "again", "tokens-in-another-order", "pytorch-step", "8-bit-weights")
        return {
            (name, number): GOOD | (NEAR if name in harmless else near) | {"spectrum": [-1.0, -2.0]}
            for name, count in wanted.items()
            for number in range(count)
        }


@pytest.fixture(autouse=True)
def usable(monkeypatch: pytest.MonkeyPatch) -> None:
    """What these tests name need not exist: no network runs."""
    monkeypatch.setattr(cli, "_require_usable", lambda *folders: None)


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> typer.Typer:
    monkeypatch.setattr(run, "ExperimentRun", FakeRun)
    app = typer.Typer()
    app.command(COMMAND)(command)
    return app


def given(folder: Path) -> list[str]:
    return [f"--{name}={folder}" for name in ("bundle", "checkpoint", "judges", "work", "out")]


def test_the_small_set_prints_verdicts_and_writes_no_record(app: typer.Typer, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, [*given(tmp_path), "--small"], catch_exceptions=False)
    assert done.exit_code == 0
    assert "passed  8-bit-weights\n" in done.output and "failed  3-bit-weights, latents, worst_latents\n" in done.output
    assert not list(tmp_path.rglob("*.json"))


def test_damage_that_passes_exits_with_one(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(FakeRun, "caught", False)
    assert CliRunner().invoke(app, [*given(tmp_path), "--small"]).exit_code == 1


def test_the_large_set_is_recorded(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(harness, "passes", lambda test, root: True)
    asked = ["--people=4", "--sweep=4", "--steps=7", "--machine=desk"]
    done = CliRunner().invoke(app, [*given(tmp_path), *asked], catch_exceptions=False)
    assert done.exit_code == 0
    record = read(tmp_path / "desk" / "fidelity.json")
    assert record.settings["options"]["steps"] == 7 and record.settings["sweep"] == 4
    assert record.findings.figures["no-local"]["facesim_arc"]["n"] == 4
    assert record.findings.verdicts["again"]["passed"]


def test_nothing_is_measured_when_its_test_fails(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(harness, "passes", lambda test, root: False)
    done = CliRunner().invoke(app, given(tmp_path))
    assert done.exit_code == 1 and "does not pass" in done.output and not list(tmp_path.rglob("*.json"))


@pytest.mark.parametrize(("far", "code"), [(0.01, 0), (0.5, 1)])
def test_another_bundle_is_compared_with_the_exact_one(
    far: float, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, judge_folder: Path
) -> None:
    for name, scale in (("fast", 1 + far), ("exact", 1.0)):
        (tmp_path / name / "exact").mkdir(parents=True)
        for number in range(4):
            frames = np.full((3, 32, 32, 3), 100, np.uint8)
            np.savez(tmp_path / name / "exact" / f"{number}.npz", latents=scale * np.ones((1, 3, 4)), frames=frames)

    class StoredRun(FakeRun):
        def __init__(self, setup: ExperimentSetup, folder: Path) -> None:
            super().__init__(setup, folder)
            self.setup, self.folder = setup, setup.bundle

    monkeypatch.setattr(run, "ExperimentRun", StoredRun)
    app = typer.Typer()
    app.command("gate")(gate_command)
    options = [f"--against={tmp_path / 'exact'}", f"--judges={judge_folder}", f"--checkpoint={tmp_path}", "--people=4"]
    done = CliRunner().invoke(app, [str(tmp_path / "fast"), *options, f"--work={tmp_path}"], catch_exceptions=False)
    assert done.exit_code == code
    assert f"{'pass' if code == 0 else 'FAIL'}  latents: {far:.4g}" in done.output


def test_a_candidate_that_is_not_finite_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, judge_folder: Path
) -> None:
    class NotFiniteRun(FakeRun):
        def __init__(self, setup: ExperimentSetup, folder: Path) -> None:
            super().__init__(setup, folder)
            self.not_finite = setup.bundle.name == "fast"

        def measure(self, wanted: dict[str, int], processes: int, progress: Any) -> run.Results:
            if self.not_finite:
                raise NotFinite("dit_step returned NaN in velocity")
            return super().measure(wanted, processes, progress)

    monkeypatch.setattr(run, "ExperimentRun", NotFiniteRun)
    app = typer.Typer()
    app.command("gate")(gate_command)
    options = [f"--against={tmp_path / 'exact'}", f"--judges={judge_folder}", f"--checkpoint={tmp_path}"]
    done = CliRunner().invoke(app, [str(tmp_path / "fast"), *options, f"--work={tmp_path}"], catch_exceptions=False)
    assert done.exit_code == 1
    assert "FAIL  finite" in done.output and "dit_step returned NaN" in done.output


def test_a_missing_distribution_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "consisid_nano", None)
    for name in [name for name in sys.modules if name == "consisid_fidelity.nano.setup"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "consisid_fidelity.nano.experiments", raising=False)
    for call in (command, partial(gate_command, Path("bundle"))):
        with pytest.raises(MissingExtra, match="pip install consisid-nano"):
            call()


def test_the_least_number_of_people_is_the_gates() -> None:
    assert cli.MIN_PEOPLE == verdict.MIN_VIDEOS


def test_missing_weights_are_named(app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def missing() -> Path:
        raise consisid_nano.DataMissing("no checkpoint here")

    monkeypatch.setattr(consisid_nano, "checkpoint", missing)
    done = CliRunner().invoke(app, [f"--work={tmp_path}", "--small"])
    assert isinstance(done.exception, MissingExtra) and "no checkpoint here" in str(done.exception)
