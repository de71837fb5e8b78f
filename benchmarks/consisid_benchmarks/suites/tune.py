"""Finds the fastest tile of each kernel and the fastest form of each operator on this GPU: `make tune`.

Both are written into tables; nothing is tuned at run time. Kernels without an entry in a table use the default tile,
operators without one the predicted form (`consisid_kernels.forms`).
"""

from __future__ import annotations

import itertools
import json
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from statistics import median

import torch
import typer

from consisid_benchmarks.suites.gpu import seconds
from consisid_benchmarks.suites.kernel_case_types import Case, Size
from consisid_benchmarks.suites.kernel_cases import cases
from consisid_benchmarks.suites.kernels import usable
from consisid_kernels import forms, launch
from consisid_kernels.attention import joint_hopper
from consisid_runtime.errors import MissingExtra

Tile = dict[str, int]

_WARPS = {"num_warps": (4, 8), "num_stages": (2, 3, 4)}
CANDIDATES: dict[str, dict[str, tuple[int, ...]]] = {
    "joint_attention": {"block_m": (64, 128, 256), "block_n": (32, 64, 128), **_WARPS},
    "joint_attention_hopper": {"block_n": (64, 128), "num_stages": (2, 3, 4, 5), "polynomial": (0, 1)},
    "qkv_epilogue": {"block": (16, 32, 64), "group": (4, 6, 12, 24), **_WARPS},
    "modulated_norm": {"rows": (1, 2, 4, 8, 16), **_WARPS},
    "gated_residual": {"rows": (1, 2, 4, 8, 16), "num_warps": (4, 8)},
    "gated_residual_norm": {"rows": (1, 2, 4, 8, 16), **_WARPS},
    "face_attention": {
        "block_m": (32, 64, 128), "block_c": (64, 128), "block_k": (32, 64), "block_n": (32, 64), **_WARPS,
    },
    "linear": {"block_m": (64, 128), "block_n": (64, 128, 256), "block_k": (64, 128), "group": (4, 8, 16), **_WARPS},
}  # fmt: skip
"""Kernel → candidate values of each tile parameter. Other parameters and other kernels are not tuned."""

TABLE = {"linear_gelu": "linear"}
"""Kernel in `kernel_cases` → its table, for tables with another name."""

FORMS: dict[str, tuple[str, dict[str, str]]] = {
    "joint_attention": ("{dtype}-d{size}", {"plain": "ours", "hopper": "ours/hopper"}),
    "linear_float8": ("{dtype}", {"triton": "ours", "scaled_mm": "torch-scaled-mm"}),
    "linear_gelu": ("{dtype}", {"triton": "ours", "cublaslt": "torch-cublaslt-epilogue"}),
}
"""Operator in `kernel_cases` → how its case is spelled, and form, as `forms` names both, → its variant there."""


def tune(
    size: Size, number: int, timed: Callable[[Callable[[], object]], float], progress: Callable[[str], None]
) -> Iterator[tuple[str, str, Tile]]:
    """Table, key and fastest tile of every kernel with a candidate that is faster than the tile in its table.

    A candidate that does not compile, exceeds the GPU's resources or changes the result is skipped.

    Args:
        size: of the model and video.
        number: architecture of this GPU, such as 90.
        timed: returns the seconds of one call.
        progress: called with a line of text for each kernel.
    """
    for case in cases(size):
        kernel = case.name.partition("/")[0]
        calls = {TABLE.get(kernel, kernel): "ours"}
        if "ours/hopper" in case.calls and number == 90:
            calls["joint_attention_hopper"] = "ours/hopper"
        for table, variant in ((table, calls[table]) for table in calls.keys() & CANDIDATES.keys()):
            key = _key(table, size, number)
            best = _best(case, variant, table, key, number, timed)
            progress(f"{table} {key}: {best}")
            if best != launch.tile(table, key, number):
                yield table, key, best


def _best(
    case: Case, variant: str, table: str, key: str, number: int, timed: Callable[[Callable[[], object]], float]
) -> Tile:
    current = launch.tile(table, key, number)
    wanted = _first(case.calls[variant]())
    grid = CANDIDATES[table]
    found = [(timed(case.calls[variant]), current)]
    for values in itertools.product(*grid.values()):
        candidate = current | dict(zip(grid, values, strict=True))
        with _tile_override(table, key, number, candidate):
            try:
                error = float((_first(case.calls[variant]()) - wanted).norm() / wanted.norm())
                if error <= case.tolerance:
                    found.append((timed(case.calls[variant]), candidate))
            except Exception as refused:  # Triton raises many types for a tile that does not fit
                typer.echo(f"  {candidate}: {str(refused).splitlines()[0][:100]}")
    return min(found, key=lambda measured: measured[0])[1]


class _tile_override:
    """A context in which the kernels use another tile."""

    def __init__(self, table: str, key: str, number: int, tile: Tile) -> None:
        content = json.loads((launch.TILES / f"{table}.json").read_text())
        self._content = content | {str(number): content.get(str(number), {}) | {key: tile}}
        self._table, self._before = table, launch.TILES

    def __enter__(self) -> None:
        self._folder = tempfile.TemporaryDirectory()
        for file in self._before.glob("*.json"):
            (Path(self._folder.name) / file.name).write_text(file.read_text())
        (Path(self._folder.name) / f"{self._table}.json").write_text(json.dumps(self._content))
        launch.TILES = Path(self._folder.name)
        launch.tile.cache_clear()

    def __exit__(self, *_: object) -> None:
        launch.TILES = self._before
        launch.tile.cache_clear()
        self._folder.cleanup()


def time_forms(
    size: Size, number: int, timed: Callable[[Callable[[], object]], float], progress: Callable[[str], None]
) -> Iterator[tuple[str, dict[str, float]]]:
    """ "operator/case" and the seconds of each form that this GPU runs, of every operator with several.

    Arguments as `tune`. Raises `Mismatch` where the results of two forms differ.
    """
    for case in cases(size):
        operator = case.name.partition("/")[0]
        if operator not in FORMS:
            continue
        try:
            calls = usable(case)
        except ValueError as refused:  # our kernel does not support this architecture
            progress(f"{case.name}: skipped: {refused}")
            continue
        spelled, variants = FORMS[operator]
        took = {
            name: timed(calls[variant])
            for name, variant in variants.items()
            if variant in calls and (name != "hopper" or number == joint_hopper.ARCHITECTURE)
        }
        if len(took) < 2:
            continue
        key = f"{operator}/{spelled.format(dtype=launch.DTYPES[size.dtype], size=size.head_dim)}"
        progress(f"{key}: {took}")
        yield key, took


def write_forms(number: int, key: str, seconds: Mapping[str, float]) -> None:
    """Write an operator's seconds into the table of forms."""
    content = json.loads(forms.FORMS.read_text())
    content.setdefault(str(number), {})[key] = dict(seconds)
    forms.FORMS.write_text(json.dumps(content, indent=1) + "\n")


def write(table: str, key: str, number: int, tile: Mapping[str, int]) -> None:
    """Write a tile into a kernel's table."""
    path = launch.TILES / f"{table}.json"
    content = json.loads(path.read_text())
    content.setdefault(str(number), {})[key] = dict(tile)
    path.write_text(json.dumps(content, indent=1) + "\n")


def _key(table: str, size: Size, number: int) -> str:
    """The key in a table that applies to this size."""
    dtype = launch.DTYPES[size.dtype]
    known = json.loads((launch.TILES / f"{table}.json").read_text())["default"]
    return next(key for key in (f"{dtype}-d{size.head_dim}", dtype, "16-bit") if key in known)


def _first(found: object) -> torch.Tensor:
    tensor = found[0] if isinstance(found, tuple) else found
    assert isinstance(tensor, torch.Tensor)
    return tensor.float()


def main() -> None:
    """Tune for ConsisID-preview's size, in bfloat16 and float16: tiles first, then the forms with these tiles."""
    if not torch.cuda.is_available():
        raise MissingExtra("tuning needs an NVIDIA GPU and a CUDA build of PyTorch")
    number = launch.architecture(torch.device("cuda"))
    assert number is not None

    def timed(call: Callable[[], object]) -> float:
        repeats = max(1, round(0.01 / seconds(call, 1)))
        return median(seconds(call, repeats) / repeats for _ in range(3))

    for dtype in (torch.bfloat16, torch.float16):
        for found in tune(Size(dtype=dtype), number, timed, typer.echo):
            table, key, tile = found
            write(table, key, number, tile)
        launch.tile.cache_clear()
        for operator, took in time_forms(Size(dtype=dtype), number, timed, typer.echo):
            write_forms(number, operator, took)


if __name__ == "__main__":
    typer.run(main)
