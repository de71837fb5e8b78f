"""Runs commands one after the other in this process, started by test_paths.py: each would import torch again.

Reads a JSON list of argument lists from standard input; prints one of [exit status, standard output, standard error].
"""

import io
import json
import sys
import traceback
from contextlib import redirect_stderr, redirect_stdout

from consisid_runtime.cli import main, output


def run(arguments: list[str]) -> tuple[object, str, str]:
    streams = [io.TextIOWrapper(io.BytesIO(), encoding="utf-8", write_through=True) for _ in range(2)]
    output._as_json.set(False)
    sys.argv = ["consisid", *arguments]
    print(sys.argv, file=sys.stderr)  # the last one did not end, where this process does not
    status: object = 0
    with redirect_stdout(streams[0]), redirect_stderr(streams[1]):
        try:
            main.main()
        except SystemExit as end:
            status = end.code
        except Exception:
            traceback.print_exc()
            status = 1
    printed, complained = (stream.buffer.getvalue().decode() for stream in streams)  # type: ignore[attr-defined]
    return status, printed, complained


if __name__ == "__main__":
    print(json.dumps([run(arguments) for arguments in json.load(sys.stdin)]))
