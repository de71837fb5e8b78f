import json
import os
import shutil
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch

from consisid_benchmarks.gpu_run import __main__ as command
from consisid_benchmarks.gpu_run import parts as table
from consisid_benchmarks.gpu_run.parts import PARTS, Part
from consisid_benchmarks.gpu_run.runner import process, run
from consisid_measurement import environment, harness
from consisid_measurement.record import Machine

MACHINE = Machine("h200", "A CPU", 16, 128, "NVIDIA H200")


class Bench:
    """A repository of one file, and processes that take the seconds that a test wants."""

    def __init__(self, folder: Path) -> None:
        self.root, self.out = folder, folder / "out"
        self.clock, self.ran = 0.0, list[tuple[str, float]]()
        self.said: list[str] = []
        self.status: dict[str, int | None] = {}
        self.takes: dict[str, float] = {}
        (folder / "source.py").write_text("1\n")

    def execute(self, arguments: Sequence[str], seconds: float) -> tuple[int | None, str]:
        name = arguments[-1]
        self.ran.append((name, seconds))
        self.clock += self.takes.get(name, 1.0)
        return self.status.get(name, 0), f"output of {name}"

    def __call__(self, *parts: Part, budget: float = 100) -> bool:
        self.ran.clear()
        return run(
            parts,
            self.out,
            machine=MACHINE,
            root=self.root,
            budget=budget,
            execute=self.execute,
            now=lambda: self.clock,
            say=self.said.append,
        )

    def states(self) -> dict[str, str]:
        return {name: part["state"] for name, part in self.record().items()}

    def record(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.out / "gpu-h200.json").read_bytes())["parts"]
        return found


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def part(name: str, **more: Any) -> Part:
    return Part(name, 30, (name,), ("source.py",), **more)


def test_what_passed_is_not_repeated_until_its_sources_change(bench: Bench) -> None:
    bench.status["b"] = 1
    assert not bench(part("a"), part("b"), part("c"))
    assert bench.ran == [("a", 30), ("b", 30), ("c", 30)]
    assert bench.states() == {"a": "passed", "b": "failed", "c": "passed"}
    bench.status["b"] = 0
    assert bench(part("a"), part("b"), part("c"))
    assert bench.ran == [("b", 30)]
    assert bench(part("a"), part("b")) and bench.ran == []
    (bench.root / "source.py").write_text("2\n")
    assert bench(part("a")) and bench.ran == [("a", 30)]


def test_a_suite_without_its_record_is_measured_again(bench: Bench) -> None:
    assert bench(part("a", suite="stages"))
    assert bench(part("a", suite="stages")) and bench.ran
    (bench.out / "h200").mkdir()
    (bench.out / "h200" / "stages.json").write_text("{}")
    assert bench(part("a", suite="stages")) and bench.ran == []


def test_a_failing_part_stops_no_other_and_its_record_says_what_failed(bench: Bench) -> None:
    bench.status |= {"a": 3, "b": None}
    assert not bench(part("a"), part("b"), part("c"))
    assert [name for name, _ in bench.ran] == ["a", "b", "c"]
    found = bench.record()
    assert (found["a"]["why"], found["a"]["output"]) == ("exit status 3", "output of a")
    assert (found["b"]["state"], found["b"]["why"]) == ("timed out", "stopped after 30 s")
    assert found["c"]["seconds"] == 1.0 and found["c"]["commit"] == "unknown"
    assert "a: failed, exit status 3" in bench.said and "output of a" in bench.said


def test_every_part_is_recorded_before_the_next_begins(bench: Bench) -> None:
    seen: list[dict[str, str]] = []
    execute = bench.execute
    bench.execute = lambda *given: (seen.append(bench.states() if seen else {}), execute(*given))[1]  # type: ignore[method-assign,func-returns-value]
    bench(part("a"), part("b"))
    assert seen == [{}, {"a": "passed"}]


def test_the_budget_shortens_a_part_and_leaves_out_the_rest(bench: Bench) -> None:
    bench.takes = {"a": 80, "b": 20}
    assert not bench(part("a"), part("b"), part("c"))
    assert bench.ran == [("a", 30), ("b", 20)]
    assert bench.states() == {"a": "passed", "b": "passed", "c": "not run"}
    assert bench.record()["c"]["why"] == "the 100 seconds were used up"


def test_a_part_without_its_package_or_program_is_left_out_and_said_to_be(bench: Bench) -> None:
    assert bench(part("a", packages=("no_such_package",)), part("b", program=("no-such-program", "--x")), part("c"))
    assert bench.ran == [("c", 30)]
    assert "a: not run, needs no_such_package" in bench.said
    assert "b: not run, needs no-such-program" in bench.said


def test_a_damaged_record_is_named(bench: Bench) -> None:
    bench.out.mkdir()
    (bench.out / "gpu-h200.json").write_text("[]")
    with pytest.raises(ValueError, match=r"gpu-h200\.json: not the record of `make gpu`"):
        bench(part("a"))


def test_a_process_gives_its_status_and_the_end_of_its_output() -> None:
    status, output = process([sys.executable, "-c", "import sys; print('x' * 9000, 'end'); sys.exit(3)"], 20)
    assert status == 3
    assert output.endswith("x end\n") and len(output) == 6000


def test_at_its_limit_a_process_is_gone_with_all_that_it_started(tmp_path: Path) -> None:
    child = tmp_path / "child"
    code = "import subprocess, sys; child = subprocess.Popen(['sleep', '60'])"
    code += "; open(sys.argv[1], 'w').write(str(child.pid)); child.wait()"
    began = time.monotonic()
    assert process([sys.executable, "-c", code, str(child)], 1.5)[0] is None
    assert time.monotonic() - began < 20
    while True:  # it is a zombie until init has read its status
        try:
            os.kill(int(child.read_text()), 0)
            state = Path(f"/proc/{child.read_text()}/stat").read_text().split()[2]
        except (ProcessLookupError, FileNotFoundError):
            break
        if state == "Z":
            break
        assert time.monotonic() - began < 20, "the child runs on"
        time.sleep(0.05)


def test_the_parts_are_in_order_and_lead_to_files() -> None:
    names = [each.name for each in PARTS]
    assert names == ["ceilings", "stages", "whole", "peers", "kernels", "tests", "sanitizer"]
    assert [each.name for each in PARTS if each.optional] == ["sanitizer"]
    assert all(file.is_file() for each in PARTS for file in each.files(environment.checkout()))


def test_tests_use_the_cores_that_there_are(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    (bench.root / "tests" / "kernels").mkdir(parents=True)
    commands: list[Sequence[str]] = []
    bench.execute = lambda given, seconds: (commands.append(given), (0, ""))[1]  # type: ignore[method-assign,func-returns-value]
    tests = replace(next(each for each in PARTS if each.name == "tests"), entry=("source.py",))
    for cores, wanted in ((16, ["-n", "8", "--dist", "loadfile", "tests/kernels"]), (2, ["tests/kernels"])):
        monkeypatch.setattr(environment, "cores", lambda cores=cores: cores)
        (bench.root / "source.py").write_text(f"{cores}\n")
        bench(tests)
        before = commands[-1].index("no:cacheprovider") + 1
        assert commands[-1][before : before + len(wanted)] == wanted
    assert harness.side_by_side(bench.root / "source.py") == []


@pytest.fixture
def complete(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every package is there, and no part may start."""
    monkeypatch.setattr(table, "find_spec", lambda name: True)
    monkeypatch.setattr(command, "_run", lambda given: pytest.fail("a part was started"))


def test_without_a_gpu_it_ends_at_once_and_says_what_is_needed(
    complete: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert command.main([]) == 7
    assert "MISSING_EXTRA: `make gpu` measures on an NVIDIA GPU" in capsys.readouterr().err


def test_without_a_package_it_ends_at_once_and_names_it(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(command, "_run", lambda given: pytest.fail("a part was started"))
    monkeypatch.setattr(table, "find_spec", lambda name: None if name in ("triton", "onnx") else find_spec(name))
    assert command.main([]) == 7
    assert "lacks triton, onnx" in capsys.readouterr().err


def test_without_a_compiler_it_ends_at_once(
    complete: None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.delenv("CC", raising=False)
    assert command.main([]) == 7
    assert "a C compiler" in capsys.readouterr().err


def test_an_unknown_part_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(command, "require_everything", lambda: None)
    assert command.main(["--only", "stagse"]) == 3
    assert "--only must be one of ceilings, stages, whole" in capsys.readouterr().err
