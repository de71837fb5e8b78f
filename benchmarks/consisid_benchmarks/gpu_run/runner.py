"""Runs parts one after the other in processes of their own, and writes what became of each as soon as it is known."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from consisid_benchmarks.gpu_run.parts import OUT, SIDE_BY_SIDE, Part
from consisid_measurement import environment
from consisid_measurement.harness import side_by_side
from consisid_measurement.record import Machine
from consisid_measurement.sources import Sources
from consisid_runtime.files.atomic import write_file

PASSED, FAILED, TIMED_OUT, NOT_RUN = "passed", "failed", "timed out", "not run"
_KEPT = 6000
"""Characters of a part's output that its record keeps: the last ones."""

Execute = Callable[[Sequence[str], float], tuple[int | None, str]]
"""Command and seconds → exit status, None where it was stopped, and the end of its output."""


def run(
    parts: Iterable[Part],
    out: Path,
    *,
    machine: Machine,
    root: Path,
    budget: float,
    execute: Execute,
    now: Callable[[], float] = time.monotonic,
    say: Callable[[str], None] = print,
) -> bool:
    """Whether every part passed, now or before, but for those that lack a package.

    `out/gpu-MACHINE.json` has each part's state: "passed", "failed", "timed out" or "not run", why, the end of its
    output, its seconds, and the source files it ran with. A part that passed with the present source files is not
    repeated. No part begins after `budget` seconds or lasts longer. Raises `OutputUnwritable`.
    """
    path, began, complete = out / f"gpu-{machine.name}.json", now(), True
    known = _read(path)
    for part in parts:
        sources = Sources.of(root, part.files(root))
        if _done(part, known.get(part.name), sources, out / machine.name):
            say(f"{part.name}: passed before")
            continue
        left = budget - (now() - began)
        limit = min(part.seconds, left)
        if missing := part.missing():
            found = {"state": NOT_RUN, "why": f"needs {', '.join(missing)}"}
        elif left <= 0:
            found, complete = {"state": NOT_RUN, "why": f"the {budget:g} seconds were used up"}, False
        else:
            say(f"{part.name}: at most {limit:.0f} s")
            found = _outcome(part, out, root, limit, execute, now)
            complete = complete and found["state"] == PASSED
        about = {"commit": environment.commit(root), "when": environment.now(), "sources": asdict(sources)}
        known[part.name] = found | about
        data = {"machine": asdict(machine), "parts": known}
        write_file(path, json.dumps(data, indent=1).encode() + b"\n", parents=True)
        say(f"{part.name}: {found['state']}{_because(found)}")
        if found["state"] in (FAILED, TIMED_OUT):
            say(found["output"])
    say(f"wrote {path}")
    return complete


def process(command: Sequence[str], seconds: float) -> tuple[int | None, str]:
    """Runs a command; at its end, or after `seconds`, it and all that it started are gone."""
    with tempfile.TemporaryFile() as output:
        started = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT, start_new_session=True)
        status: int | None = None
        try:
            with suppress(subprocess.TimeoutExpired):
                status = started.wait(seconds)
        finally:
            _end(started)
        output.seek(max(0, output.seek(0, os.SEEK_END) - 4 * _KEPT))
        return status, output.read().decode(errors="replace")[-_KEPT:]


def _outcome(
    part: Part, out: Path, root: Path, limit: float, execute: Execute, now: Callable[[], float]
) -> dict[str, Any]:
    began = now()
    status, output = execute(_command(part, out, root), limit)
    state = PASSED if status == 0 else TIMED_OUT if status is None else FAILED
    why = {PASSED: "", TIMED_OUT: f"stopped after {limit:.0f} s", FAILED: f"exit status {status}"}[state]
    return {"state": state, "why": why, "seconds": round(now() - began, 1), "output": output}


def _command(part: Part, out: Path, root: Path) -> list[str]:
    command = [*part.program, sys.executable, "-P"]
    for each, following in zip(part.arguments, (*part.arguments[1:], ""), strict=True):
        command += side_by_side(root / following) if each == SIDE_BY_SIDE else [str(out) if each == OUT else each]
    return command


def _done(part: Part, known: Mapping[str, Any] | None, sources: Sources, records: Path) -> bool:
    if known is None or known["state"] != PASSED or Sources.from_json(known["sources"]) != sources:
        return False
    return not part.suite or (records / f"{part.suite}.json").is_file()


def _read(path: Path) -> dict[str, Any]:
    """Raises `ValueError` naming a file that is no record of parts."""
    if not path.is_file():
        return {}
    try:
        parts: dict[str, Any] = json.loads(path.read_bytes())["parts"]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"{path}: not the record of `make gpu`: {error}; remove it") from error
    return parts


def _end(started: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):
        os.killpg(started.pid, signal.SIGKILL)
    started.wait()


def _because(found: Mapping[str, Any]) -> str:
    return f", {found['why']}" if found["why"] else f" in {found['seconds']:g} s"
