"""Budgets of the GPU path: what each stage may make a GPU do, in `budgets.json`, compared exactly.

`python -m consisid_benchmarks.fake_gpu.budgets` counts again and compares; `--write` writes what it counted. After a
change of the engine, the difference of that file is what the change costs or saves. It needs g++ and no GPU.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from consisid_measurement import environment
from consisid_runtime.files.atomic import write_file
from consisid_runtime.memory import needs

BUDGETS = Path(__file__).with_name("budgets.json")
CASES = ("nano", "full")
NANO_STEPS = 11
"""Of case "nano": more than one block of modulations, so that a step within and one at the start of a block are both
counted. Its stage "denoise/steps" has all but the first."""
WRITE = "python -m consisid_benchmarks.fake_gpu.budgets --write"
_TOTALS = ("launches", "bytes", "flops")
_MEMORY = ("start_bytes", "peak_bytes")
NEEDS = Path(needs.__file__).with_name(needs.FILE)
"""What the modules need of memory, which the runtime's plans are made of; written with the budget of "full"."""

Found = Mapping[str, Any]


def read() -> dict[str, Any]:
    """Case → its budget: "versions", "stages" by name, "compiled" kernels by name."""
    known: dict[str, Any] = json.loads(BUDGETS.read_text()) if BUDGETS.is_file() else {}
    return known


def nano_bundle() -> Path:
    """Nano's bundle for the torch engine in bf16, written on first use into build/fake-gpu."""
    import consisid_nano
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint

    folder = environment.checkout() / "build" / "fake-gpu" / "nano-torch-bf16"
    export_bundle(Checkpoint.open(consisid_nano.checkpoint()), folder, engine="torch", precision="bf16")
    return folder


def measure(case: str) -> dict[str, Any]:
    """What a case counts. Raises `subprocess.CalledProcessError`, its standard error passed on, where it fails."""
    what = str(nano_bundle()) if case == "nano" else ""
    found: dict[str, Any] = json.loads(run_fake("-m", "consisid_benchmarks.fake_gpu.cases", case, what))
    return found


def run_fake(*arguments: str) -> str:
    """Standard output of Python in a process for the fake GPU: a guard and a driver stay where they were loaded."""
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    own = {
        "TRITON_CACHE_DIR": str(environment.checkout() / "build" / "fake-gpu" / "triton"),
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
    }
    command = [sys.executable, *arguments]
    return subprocess.run(command, env=kept | own, stdout=subprocess.PIPE, text=True, check=True).stdout


def differences(found: Found, budget: Found) -> Iterator[str]:
    """A sentence for everything that is not as in the budget, more as well as less."""
    for stage in sorted({*found["stages"], *budget["stages"]}):
        new, old = found["stages"].get(stage), budget["stages"].get(stage)
        if new is None or old is None:
            yield f"{stage}: {'not run' if new is None else 'no budget'}"
            continue
        for what in _TOTALS:
            count, allowed = new["total"][what], old["total"][what]
            if count != allowed:
                yield f"{stage}: {count} {what}, its budget is {allowed}{_which(new, old, what)}"
        for what in _MEMORY:
            if new[what] != old[what]:
                yield f"{stage}: {new[what]} {what.replace('_', ' ')}, its budget is {old[what]} (at {new['peak_at']})"
        for line in sorted({*new["waits"], *old["waits"]}):
            count, allowed = new["waits"].get(line, 0), old["waits"].get(line, 0)
            if count != allowed:
                yield f"{stage}: waits {count} times, its budget is {allowed}: {line}"
    for kernel in sorted({*found["compiled"], *budget["compiled"]}):
        made, known = found["compiled"].get(kernel), budget["compiled"].get(kernel)
        if made != known:
            yield f"{kernel}: {made}, its budget is {known}"
    yield from (f"{kernel}: {form['spills']} bytes of spills" for kernel, form in _spilling(found))
    if found.get("memory", known_needs := needs.counted()) != known_needs:
        yield f"{needs.FILE}: the modules need {found['memory']}, it says {known_needs}"


def _spilling(found: Found) -> Iterator[tuple[str, Any]]:
    return ((kernel, form) for kernel, form in found["compiled"].items() if form["spills"])


def _which(new: Found, old: Found, what: str) -> str:
    """The kernels that account for a difference."""
    names = sorted({*new["kernels"], *old["kernels"]})
    of = [(name, *(side["kernels"].get(name, {}).get(what, 0) for side in (new, old))) for name in names]
    changed = [f"{name} {before} → {now}" for name, now, before in of if now != before]
    return f" ({', '.join(changed)})" if changed else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write budgets.json instead of comparing with it")
    parser.add_argument("--only", choices=CASES, help="one case")
    arguments = parser.parse_args()
    known, problems, counted_needs = read(), [], needs.counted()
    for case in CASES:
        if arguments.only in (None, case):
            found = measure(case)
            if case in known:
                problems += [f"{case}: {text}" for text in differences(found, known[case])]
            if memory := found.pop("memory", None):
                counted_needs = memory
            known[case] = found
    print("\n".join(problems or ["as in budgets.json"]))
    if arguments.write:
        write_file(BUDGETS, json.dumps(known, indent=1).encode() + b"\n")
        write_file(NEEDS, json.dumps(counted_needs, indent=1).encode() + b"\n")
    elif problems:
        sys.exit(f"{len(problems)} differences; where they are meant: {WRITE}")


if __name__ == "__main__":
    main()
