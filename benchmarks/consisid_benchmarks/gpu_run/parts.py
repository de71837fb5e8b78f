"""The parts of `make gpu`, in the order in which they are worth having."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

REQUIRED = (
    "torch",
    "triton",
    "numpy",
    "onnx",
    "PIL",
    "pytest",
    "rich",
    "safetensors",
    "sentencepiece",
    "skimage",
    "typer",
)
"""Packages, as they are imported, without which nothing is measured: the gate's are among them."""
OUT = "{out}"
"""In a part's arguments: the folder of results."""
SIDE_BY_SIDE = "{side by side}"
"""There: what `harness.side_by_side` adds for the folder that follows."""


@dataclass(frozen=True, slots=True)
class Part:
    """One process.

    Attributes:
        seconds: after which it is stopped.
        arguments: of Python, after `-P`.
        entry: files and folders, relative to the repository's root; with other content than these and what they import
            have now, the part is run again.
        suite: whose record it leaves, "" for none.
        packages: without which it is left out.
        program: in front of Python.
        optional: run only where it is named.
    """

    name: str
    seconds: float
    arguments: tuple[str, ...]
    entry: tuple[str, ...]
    suite: str = ""
    packages: tuple[str, ...] = ()
    program: tuple[str, ...] = ()
    optional: bool = False

    def missing(self) -> list[str]:
        """What it needs and is not installed."""
        program = self.program[:1]
        return [*absent(self.packages), *(name for name in program if not shutil.which(name))]

    def files(self, root: Path) -> Iterator[Path]:
        """Those of `entry`, of a folder all of its Python."""
        for name in self.entry:
            path = root / name
            yield from sorted(path.rglob("*.py")) if path.is_dir() else [path]


def absent(packages: tuple[str, ...]) -> list[str]:
    """Those that cannot be imported."""
    return [name for name in packages if find_spec(name) is None]


def _suite(name: str, seconds: float, *more: str, folder: str = "gpu_run", packages: tuple[str, ...] = ()) -> Part:
    run = f"import typer; from consisid_benchmarks.{folder}.{name} import command; typer.run(command)"
    entry = f"benchmarks/consisid_benchmarks/{folder}/{name}.py"
    return Part(name, seconds, ("-c", run, "--out", OUT, *more), (entry,), name, packages)


_PYTEST = ("-m", "pytest", "-q", "-o", "filterwarnings=default", "-p", "no:cacheprovider")
_KERNELS = "tests/kernels"
_TENSORRT = "tests/runtime/engines/test_engine_tensorrt.py"

PARTS = (
    Part(
        "ceilings",
        40,
        ("-m", "consisid_benchmarks.suites.gpu"),
        ("benchmarks/consisid_benchmarks/suites/gpu.py",),
    ),
    _suite("stages", 150),
    _suite("whole", 170, "--seconds", "90"),
    _suite("peers", 170, packages=("diffusers",)),
    _suite("kernels", 200, "--rounds", "10", folder="suites"),
    Part("tests", 150, (*_PYTEST, SIDE_BY_SIDE, _KERNELS, _TENSORRT, "-m", "not proof"), (_KERNELS, _TENSORRT)),
    Part(
        "sanitizer",
        300,
        (*_PYTEST, _KERNELS, "-m", "not proof and not gpu"),
        (_KERNELS,),
        program=("compute-sanitizer", "--error-exitcode", "1", "--target-processes", "all"),
        optional=True,
    ),
)
