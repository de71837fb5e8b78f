"""Parts that start, die, hang and end: small scripts in place of the commands."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consisid_gateway.up import child, supervisor
from consisid_gateway.up.child import Part
from consisid_gateway.up.supervisor import Supervisor
from consisid_runtime.errors import BundleMissing, ConsisIDError

SCRIPT = """
import json, os, signal, sys, time
name, does = sys.argv[1:3]
notes = os.environ["NOTES"]
def note(text):
    with open(notes, "a") as file:
        file.write(f"{name} {text}\\n")
def end(*_):
    note("ends")
    if does != "stubborn":
        sys.exit(0)
signal.signal(signal.SIGTERM, end)
if does == "slow":
    time.sleep(0.5)
signal.signal(signal.SIGHUP, lambda *_: note("reloads"))
note(f"pid {os.getpid()}")
print(f"{name} begins", file=sys.stderr, flush=True)
if does == "refuses":
    print(json.dumps({"error": {"code": "BUNDLE_MISSING", "message": "there is none"}}), flush=True)
    sys.exit(4)
if does == "crashes":
    sys.exit(9)
print(json.dumps({"name": name}), flush=True)
while True:
    time.sleep(60)
"""


class Scene:
    """What the parts noted, and what they wrote."""

    def __init__(self, folder: Path) -> None:
        self.notes, self.lines = folder / "notes", list[tuple[str, str]]()

    def part(self, name: str, does: str = "works", grace: float = 5.0) -> Part:
        return Part(name, (name, does), {"NOTES": str(self.notes), "PATH": os.environ["PATH"]}, grace)

    def supervise(self, *parts: Part) -> Supervisor:
        return Supervisor(parts, lambda name, line: self.lines.append((name, line)))

    def noted(self, word: str) -> list[str]:
        return [line.split()[0] for line in self.notes.read_text().splitlines() if line.split()[1] == word]

    def processes(self, name: str) -> list[int]:
        lines = [line.split() for line in self.notes.read_text().splitlines()]
        return [int(line[2]) for line in lines if line[:2] == [name, "pid"]]


@pytest.fixture
def scene(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Scene:
    (script := tmp_path / "part.py").write_text(SCRIPT)
    monkeypatch.setattr(child, "_MAIN", f"exec(open({str(script)!r}).read())")
    monkeypatch.setattr(supervisor, "_PAUSE", 0.05)
    return Scene(tmp_path)


class Enough(Exception):
    """Ends `run`, as a signal would."""


def run_until(running: Supervisor, true: Callable[[], bool], monkeypatch: pytest.MonkeyPatch) -> None:
    """Supervise in this thread until something is true."""
    look, until = running._look, time.monotonic() + 20

    def watched(one: object) -> None:
        if true():
            raise Enough
        assert time.monotonic() < until
        look(one)  # type: ignore[arg-type]

    monkeypatch.setattr(running, "_look", watched)
    with pytest.raises(Enough):
        running.run()


def alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def test_they_tell_when_they_are_ready_and_end_in_order(scene: Scene) -> None:
    running = scene.supervise(*(scene.part(name) for name in ("gateway", "worker", "door")))
    told = running.start()
    assert told == {name: {"name": name} for name in ("gateway", "worker", "door")}
    running.stop()
    running.stop()
    assert scene.noted("ends") == ["gateway", "worker", "door"]
    assert set(scene.lines) == {(name, f"{name} begins") for name in told}


@pytest.mark.parametrize(
    ("does", "error", "message"),
    [
        ("refuses", BundleMissing, "there is none"),
        ("crashes", ConsisIDError, "door ended with exit status 9 before it"),
    ],
)
def test_one_that_cannot_start_ends_all_with_its_error(
    scene: Scene, does: str, error: type[ConsisIDError], message: str
) -> None:
    running = scene.supervise(scene.part("gateway"), scene.part("door", does))
    with pytest.raises(error, match=message):
        running.start()
    running.stop()
    assert not any(map(alive, scene.processes("gateway")))


def test_one_that_cannot_be_started_now_is_started_later(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    running = scene.supervise(scene.part("gateway"), scene.part("worker"))
    running.start()
    start, failures = subprocess.Popen, [BlockingIOError(11, "Resource temporarily unavailable")]

    def sometimes(*given: Any, **named: Any) -> subprocess.Popen[bytes]:
        if failures:
            raise failures.pop()
        return start(*given, **named)

    monkeypatch.setattr(child.subprocess, "Popen", sometimes)
    os.kill(scene.processes("worker")[0], signal.SIGKILL)
    run_until(running, lambda: len(scene.processes("worker")) == 2, monkeypatch)
    running.stop()
    assert any("cannot be started" in line for _, line in scene.lines)


def test_one_that_dies_is_started_again_and_the_others_stay(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    running = scene.supervise(scene.part("gateway"), scene.part("worker"))
    running.start()
    try:
        os.kill(scene.processes("worker")[0], signal.SIGKILL)
        run_until(running, lambda: len(scene.processes("worker")) == 2, monkeypatch)
        assert len(scene.processes("gateway")) == 1
        assert ("worker", "was ended by SIGKILL; is started again in 0.05 s") in scene.lines
    finally:
        running.stop()


def test_one_that_dies_again_and_again_waits_longer_each_time(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    running = scene.supervise(scene.part("worker"))
    running.start()
    monkeypatch.setattr(running._all[0].child, "part", scene.part("worker", "crashes"))
    os.kill(scene.processes("worker")[0], signal.SIGKILL)
    run_until(running, lambda: len(scene.processes("worker")) == 4, monkeypatch)
    running.stop()
    pauses = [line.rpartition(" in ")[2] for _, line in scene.lines if " in " in line]
    assert pauses[:3] == ["0.05 s", "0.1 s", "0.2 s"]


def test_one_that_does_not_end_is_killed(scene: Scene) -> None:
    running = scene.supervise(scene.part("gateway"), scene.part("worker", "stubborn", grace=0.2), scene.part("door"))
    running.start()
    running.stop()
    assert scene.noted("ends") == ["gateway", "worker", "door"]
    assert ("worker", "did not end within 0.2 s, and was killed") in scene.lines
    assert not any(map(alive, scene.processes("worker")))


def test_who_interrupts_the_end_kills_all(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    running = scene.supervise(scene.part("gateway", "stubborn", grace=60), scene.part("door", "stubborn", grace=60))
    running.start()

    def interrupt() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "_listen", interrupt)
    with pytest.raises(KeyboardInterrupt):
        running.stop()
    assert not any(map(alive, scene.processes("gateway") + scene.processes("door")))


def test_one_part_alone_is_told_to_reload(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    running = scene.supervise(scene.part("gateway"), scene.part("door"))
    running.start()
    running.reload("door")
    run_until(running, lambda: scene.noted("reloads") != [], monkeypatch)
    running.stop()
    assert scene.noted("reloads") == ["door"]


def test_one_that_is_not_ready_is_told_to_reload_once_it_is(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    running = scene.supervise(scene.part("door", "slow"))
    told = threading.Timer(0.1, running.reload, ["door"])
    told.start()
    running.start()
    run_until(running, lambda: scene.noted("reloads") != [], monkeypatch)
    running.stop()
    assert scene.noted("reloads") == ["door"]


@pytest.fixture
def killed(scene: Scene, tmp_path: Path) -> Iterator[list[int]]:
    """The parts of a supervisor that was killed with SIGKILL."""
    code = f"""
import sys
from consisid_gateway.up import child
from consisid_gateway.up.child import Part
from consisid_gateway.up.supervisor import Supervisor
child._MAIN = {child._MAIN!r}
parts = [Part(name, (name, "stubborn"), {{"NOTES": {str(scene.notes)!r}}}, 60) for name in ("gateway", "door")]
running = Supervisor(parts, print)
running.start()
print("ready", flush=True)
running.run()
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert "ready\n" in iter(process.stdout.readline, "")
        process.kill()
    yield scene.processes("gateway") + scene.processes("door")


def test_nothing_is_left_of_one_that_was_killed(killed: list[int]) -> None:
    until = time.monotonic() + 5
    while any(map(alive, killed)) and time.monotonic() < until:
        time.sleep(0.01)
    assert len(killed) == 2 and not any(map(alive, killed))


def test_no_line_is_too_long_and_none_is_lost(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    running = scene.supervise(scene.part("worker"))
    long = (
        f"print('x' * 200_000, file=sys.stderr); print('last', end='', file=sys.stderr); sys.stderr.flush()\n{SCRIPT}"
    )
    (scene.notes.parent / "part.py").write_text(f"import sys\n{long}")
    running.start()
    running.stop()
    written = "".join(line for _, line in scene.lines)
    assert written.count("x") == 200_000 and "lastworker begins" in written
    assert max(len(line) for _, line in scene.lines) <= 2**17
