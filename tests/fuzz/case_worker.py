"""A process that runs cases: a crash ends it, and not the tests.

Reads "KIND NUMBER" a line and writes a line of JSON for each: what became of it, CPU seconds, and the bytes it took.
By hand: `echo image 17 | PYTHONPATH=tests/fuzz python tests/fuzz/case_worker.py`. Tensors need a bundle's folder in
FUZZED_BUNDLE; what goes to a door needs FUZZED_HTTP, FUZZED_GRPC, and tests/runtime/door on the path.
"""

from __future__ import annotations

import json
import os
import sys
import time
import traceback
from importlib import import_module
from pathlib import Path
from random import Random
from typing import Any

from consisid_runtime.errors import ConsisIDError, all_errors


def outcome(kind: str, number: int) -> dict[str, Any]:
    """One case, run. "outcome" is "ok" or an error's code; a "finding" is what should not be."""
    cases = import_module(f"{kind}_cases")
    case = cases.make(Random(f"{kind} {number}"))
    before = _reset_peak()
    begin, found, finding = time.process_time(), "ok", None
    try:
        cases.run(case)
    except ConsisIDError as error:
        found = error.code
        error.sent().encode()
        known = {known.code for known in all_errors()} - {ConsisIDError.code}
        finding = None if found in known else f"no known code: {error.wire()[:500]}"
    except BaseException:
        found, finding = "untyped", traceback.format_exc(limit=-6)[-3000:]
    seconds = time.process_time() - begin
    return {"outcome": found, "seconds": seconds, "bytes": max(0, _status("VmHWM") - before), "finding": finding}


def _reset_peak() -> int:
    """Forget the most memory that this process had; what it has now."""
    Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def _status(name: str) -> int:
    """Bytes."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is no answer
    loaded = set()
    for line in sys.stdin:
        kind, number = line.split()
        if kind not in loaded:
            loaded.add(kind)
            import_module(f"{kind}_cases").make(Random(0))  # what is imported and made once is not the case's
        answers.write(json.dumps(outcome(kind, int(number))) + "\n")
        answers.flush()


if __name__ == "__main__":
    main()
