"""The flag `--threads` of the commands that compute."""

from __future__ import annotations

from typing import Annotated

import typer

from consisid_runtime.cpus import default_threads, use_threads


def _use(count: int | None) -> int | None:
    # Before the command imports a library: OpenMP, MKL and OpenBLAS read the number when they are loaded.
    use_threads(default_threads() if count is None else count)
    return count


Threads = Annotated[
    int | None,
    typer.Option(
        "--threads",
        help="CPU threads of each computation. Default: OMP_NUM_THREADS, else the CPUs that affinity and cgroup allow.",
        callback=_use,
    ),
]
"""Annotation of a parameter whose value the command does not need: the flag applies to the whole process."""
