"""`Pipeline.generate` refuses bad requests before any stage runs."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_runtime import errors
from consisid_runtime.files.image_file import MAX_BYTES
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.plan import Geometry, plan

GEOMETRY = Geometry(9, 32, 32, 8, 4, 2, fixed_size=False)
BUNDLE = SimpleNamespace(plan=lambda options: plan(options, GEOMETRY))
"""Options can be resolved; any use of a network would fail."""


@pytest.mark.parametrize(
    ("changed", "error"),
    [
        ({"options": {}}, errors.InvalidOption),
        ({"options": {"steps": 1}}, errors.InvalidOption),
        ({"options": Options(tier="draft")}, errors.TierUnavailable),
        ({"prompt": "a man\0walks"}, errors.InvalidOption),
        ({"prompt": None}, errors.InvalidOption),
        ({"prompt": ""}, errors.EmptyPrompt),
        ({"prompt": " \t\u200b"}, errors.EmptyPrompt),
        ({"prompt": "", "image": "none.png"}, errors.EmptyPrompt),
        ({"image": bytearray(MAX_BYTES + 1)}, errors.ImageTooLarge),
        ({"image": memoryview(b"bytes")}, errors.ImageUnreadable),
        ({"image": None}, errors.ImageUnreadable),
        ({"image": "a\0.png"}, errors.ImageUnreadable),
    ],
    ids=lambda value: re.sub(" at 0x[0-9a-f]+", "", str(value)[:80]),  # the same in every process
)
def test_arguments_of_a_wrong_kind_are_typed_errors(changed: dict[str, Any], error: type[errors.ConsisIDError]) -> None:
    pipeline = object.__new__(Pipeline)
    pipeline.bundle = BUNDLE  # type: ignore[assignment]
    with pytest.raises(error):
        pipeline.generate(**{"image": b"", "prompt": "a man walks"} | changed)


FORK = """
import os, sys
from consisid_runtime import Options, Pipeline
from consisid_runtime.errors import ForkedProcess

pipeline = Pipeline.open(sys.argv[1], device="cpu", threads=2)
portrait = sys.stdin.buffer.read()
pid = os.fork()
if pid == 0:
    try:
        pipeline.generate(portrait, "a man", Options(steps=1))
    except ForkedProcess as error:
        print(error.code, error, flush=True)
        os._exit(9)
    os._exit(0)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


def test_a_forked_process_is_told_to_open_its_own(untrained_bundle: Path, portrait: bytes) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FORK, str(untrained_bundle)], input=portrait, capture_output=True, timeout=120
    )
    error, status = done.stdout.decode().splitlines()
    assert status == "9", done.stderr
    assert error.startswith("FORKED_PROCESS the pipeline was opened in process ")
