"""What a process does with memory that it freed, counted in page faults of a fresh process."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
{prepare}
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(64 << 20)[::4096]
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(faults())
"""
PAGES = (64 << 20) // 4096
COMMAND = """
import contextlib, io
from consisid_runtime.cli.main import main
sys.argv = ["consisid", "--help"]
with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):
    main()
"""

pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")


def faults(prepare: str, **environment: str) -> int:
    """Page faults of the second allocation of 64 MiB."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", FAULTS.format(prepare=prepare)]
    found = subprocess.run(command, env=clean | environment, capture_output=True, text=True, timeout=60, check=True)
    return int(found.stdout)


def test_by_default_the_kernel_clears_every_page_again() -> None:
    assert faults("") >= PAGES / 2


@pytest.mark.parametrize(
    "prepare",
    [
        "from consisid_runtime.allocator import keep_freed_memory; assert keep_freed_memory()",
        COMMAND,
    ],
    ids=["function", "command"],
)
def test_kept_memory_costs_no_page_faults(prepare: str) -> None:
    assert faults(prepare) < PAGES / 100


@pytest.mark.parametrize("name", ["MALLOC_MMAP_THRESHOLD_", "GLIBC_TUNABLES"])
def test_a_choice_of_the_user_stays(name: str) -> None:
    chosen = {"MALLOC_MMAP_THRESHOLD_": "131072", "GLIBC_TUNABLES": "glibc.malloc.mmap_threshold=131072"}[name]
    prepare = "from consisid_runtime.allocator import keep_freed_memory; assert not keep_freed_memory()"
    assert faults(prepare, **{name: chosen}) >= PAGES / 2
