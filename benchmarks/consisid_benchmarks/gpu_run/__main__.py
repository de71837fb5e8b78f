"""`python -m consisid_benchmarks.gpu_run`: what `make gpu` runs. To say what is missing, it needs Python alone."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from consisid_benchmarks.gpu_run.parts import PARTS, REQUIRED, absent
from consisid_runtime.errors import ConsisIDError, InvalidOption, MissingExtra

BUDGET = 480
"""Seconds: what fits into ten minutes with the start of a machine."""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status: 0 where every part passed, 1 where one did not, or that of a typed error."""
    parser = argparse.ArgumentParser(prog="make gpu", description=__doc__)
    parser.add_argument("--budget", type=float, default=BUDGET, help="seconds for all parts together")
    parser.add_argument("--only", action="append", metavar="PART", help="a part; may be repeated")
    parser.add_argument("--out", type=Path, help="folder of results; default: benchmarks/results")
    given = parser.parse_args(arguments)
    try:
        require_everything()
        return 0 if _run(given) else 1
    except ConsisIDError as error:
        print(f"{error.wire()}\n{error.remedy}", file=sys.stderr)
        return error.exit


def require_everything() -> None:
    """Raises `MissingExtra` naming the packages that are missing, or the GPU, or the compiler that Triton needs."""
    if missing := absent(REQUIRED):
        raise MissingExtra(f"`make gpu` runs in the environment of {sys.executable}, which lacks {', '.join(missing)}")
    import torch

    from consisid_runtime.engines.compiler import require_compiler

    if not torch.cuda.is_available():
        raise MissingExtra(
            f"`make gpu` measures on an NVIDIA GPU, and PyTorch {torch.__version__} of {sys.executable} sees none; run "
            "it with PYTHON=… of an environment that has a CUDA build of PyTorch, on a machine that has a GPU"
        )
    require_compiler()


def _run(given: argparse.Namespace) -> bool:
    from consisid_benchmarks.gpu_run.runner import process, run
    from consisid_measurement import environment
    from consisid_runtime.files.atomic import require_folder

    names = [part.name for part in PARTS]
    if unknown := set(given.only or ()) - {*names}:
        raise InvalidOption(f"--only must be one of {', '.join(names)}, got {', '.join(sorted(unknown))}")
    root = environment.checkout()
    out = (given.out or root / "benchmarks" / "results").resolve()
    require_folder(out)
    parts = [part for part in PARTS if (part.name in given.only if given.only else not part.optional)]
    return run(parts, out, machine=environment.machine(), root=root, budget=given.budget, execute=process)


if __name__ == "__main__":
    sys.exit(main())
