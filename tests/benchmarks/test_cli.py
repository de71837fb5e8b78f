import json
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from consisid_benchmarks import cli
from consisid_benchmarks.suites import pipeline
from consisid_measurement import environment, harness
from consisid_measurement.record import Gate, Record
from consisid_measurement.sources import Sources
from consisid_runtime.errors import MissingExtra

HEAVY = {"torch", "matplotlib", "numpy", "diffusers", "transformers", "onnxruntime"}
HEADLINES = ("pipeline", "export", "fidelity")
BLOCKS = (*HEADLINES, "tiers", "serving", "stages", "whole", "peers", "kernels", "predict", "proof")


@pytest.fixture
def app() -> typer.Typer:
    app = typer.Typer()
    cli.register(app)
    return app


@pytest.fixture
def outcome(monkeypatch: pytest.MonkeyPatch) -> Callable[[Record, str], None]:
    """Replaces the measurement by a record and a reason."""

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


def test_pipeline_without_a_compiler_says_so_before_measuring(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(harness, "run", lambda *_, **__: pytest.fail("measured"))
    monkeypatch.setenv("CXX", "no-such-compiler")
    found = CliRunner().invoke(app, ["bench", "pipeline", "--out", str(tmp_path)])
    assert isinstance(found.exception, MissingExtra)
    assert "no-such-compiler: install g++" in str(found.exception)


def test_a_measured_suite_is_written_where_asked(
    app: typer.Typer, outcome: Callable[[Record, str], None], make_record: Callable[..., Record], tmp_path: Path
) -> None:
    record = make_record()
    outcome(record, "")
    done = CliRunner().invoke(app, ["bench", "pipeline", "--out", str(tmp_path), "--json"])
    assert done.exit_code == 0
    assert json.loads(done.stdout) == record.to_json()
    assert json.loads((tmp_path / "cpu-2core" / "pipeline.json").read_bytes()) == record.to_json()


def test_a_failed_gate_is_recorded_reported_and_exits_with_one(
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


def test_a_failed_check_exits_with_one_and_names_what_is_wrong(
    app: typer.Typer, monkeypatch: pytest.MonkeyPatch, make_record: Callable[..., Record], tmp_path: Path
) -> None:
    monkeypatch.setattr(environment, "checkout", lambda: tmp_path)
    rows = "\n".join(f"| <!-- headline:{name} --><!-- /headline:{name} --> |" for name in HEADLINES)
    blocks = "\n".join(f"<!-- bench:{name} --><!-- /bench:{name} -->" for name in BLOCKS)
    for name, text in (("README.md", rows), ("docs/benchmarks.md", blocks), ("docs/fidelity.md", blocks)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (tmp_path / "suite.py").write_text("1\n")
    make_record(sources=Sources.of(tmp_path, ["suite.py"])).write(tmp_path / "benchmarks" / "results")
    check, write = (partial(CliRunner().invoke, app, ["bench", "report", *more]) for more in (["--check"], []))
    assert check().exit_code == 1
    assert write().exit_code == 0
    assert check().exit_code == 0
    (tmp_path / "suite.py").write_text("2\n")
    assert write().exit_code == 0
    failed = check()
    assert failed.exit_code == 1
    assert "stale: benchmarks/results/cpu-2core/pipeline.json: measured at commit `0123456789ab`" in failed.output
    assert "measure again with `consisid bench pipeline`" in failed.output
    (tmp_path / "README.md").write_text("nothing to fill\n")
    failed = write()
    assert failed.exit_code == 1
    assert "README.md needs | <!-- headline:pipeline -->" in failed.output
