import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from consisid_benchmarks import cli
from consisid_benchmarks.suites import pipeline
from consisid_measurement import environment, harness
from consisid_measurement.record import Gate, Record

HEAVY = {"torch", "matplotlib", "numpy", "diffusers", "transformers", "onnxruntime"}


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    cli.register(app)
    return app


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Callable[[Record, str], None]:
    """Stands in for the measurement itself."""

    def stub(record: Record, reason: str) -> None:
        monkeypatch.setattr(harness, "run", lambda *_, **__: (record, reason))

    return stub


def test_registering_imports_nothing_heavy() -> None:
    probe = (
        "import sys, typer; from consisid_benchmarks.cli import register; register(typer.Typer()); print(*sys.modules)"
    )
    loaded = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True).stdout.split()
    assert "consisid_benchmarks.suites.pipeline" in loaded
    assert not HEAVY & {name.split(".")[0] for name in loaded}


def test_every_suite_is_a_command(app: typer.Typer) -> None:
    text = CliRunner().invoke(app, ["bench", "--help"]).output
    assert all(name in text for name in (*cli.SUITES, "report"))


def test_every_gate_exists() -> None:
    assert (environment.checkout() / pipeline.GATE).is_file()


def test_a_measured_suite_is_written_where_asked(
    app: typer.Typer, outcome: Callable[[Record, str], None], make_record: Callable[..., Record], tmp_path: Path
) -> None:
    record = make_record()
    outcome(record, "")
    done = CliRunner().invoke(app, ["bench", "pipeline", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == record.to_json()
    assert json.loads((tmp_path / "cpu-2core" / "pipeline.json").read_bytes()) == record.to_json()


def test_a_failed_gate_is_written_said_and_exits_with_one(
    app: typer.Typer, outcome: Callable[[Record, str], None], make_record: Callable[..., Record], tmp_path: Path
) -> None:
    outcome(make_record(gate=Gate("tests/x.py", passed=False), rows=()), "tests/x.py does not pass")
    done = CliRunner().invoke(app, ["bench", "pipeline", "--out", str(tmp_path)])
    assert done.exit_code == 1
    assert "no numbers: tests/x.py does not pass" in done.output
    assert json.loads((tmp_path / "cpu-2core" / "pipeline.json").read_bytes())["rows"] == []


@pytest.mark.parametrize("options", [["--steps", "1"], ["--rounds", "0"], ["--unknown"]])
def test_impossible_options_are_refused(app: typer.Typer, options: list[str]) -> None:
    assert CliRunner().invoke(app, ["bench", "pipeline", *options]).exit_code == 2


def test_the_report_exits_with_one_only_while_something_is_stale(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "checkout", lambda: tmp_path)
    (tmp_path / "README.md").write_text("<!-- bench:pipeline -->\n<!-- /bench:pipeline -->\n")
    make_record().write(tmp_path / "benchmarks" / "results")
    invoke = CliRunner().invoke
    assert invoke(app, ["bench", "report", "--check"]).exit_code == 1
    assert invoke(app, ["bench", "report"]).exit_code == 0
    assert invoke(app, ["bench", "report", "--check"]).exit_code == 0
    (tmp_path / "README.md").write_text("nothing to fill\n")
    failed = invoke(app, ["bench", "report"])
    assert failed.exit_code == 1
    assert "README.md needs the lines" in failed.output
