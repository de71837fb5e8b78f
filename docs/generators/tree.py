"""The table of folders, from the docstrings of their `__init__` files, and of the runtime's root modules."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from generators.markdown import table

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "kernels/consisid_kernels",
    "runtime/consisid_runtime",
    "export/consisid_export",
    "nano/consisid_nano",
    "nano/training/consisid_training",
    "benchmarks/consisid_measurement",
    "benchmarks/consisid_fidelity",
    "benchmarks/consisid_benchmarks",
    "gateway/consisid_gateway",
)
"""From the bottom layer up, training beside the layers above nano, the gateway beside those above the runtime."""
VOCABULARY = "runtime/consisid_runtime"
"""The package whose root modules are listed too: every other folder uses them."""


def folder_table() -> str:
    """Markdown: a row for each folder of code."""
    rows = [[f"`{folder.relative_to(ROOT)}/`", _summary(folder / "__init__.py")] for folder in folders()]
    return table(["folder", "what it contains"], rows)


def module_table() -> str:
    """Markdown: a row for each root module of consisid_runtime."""
    modules = sorted((ROOT / VOCABULARY).glob("[!_]*.py"))
    return table(["module", "what it does"], [[f"`{module.name}`", _summary(module)] for module in modules])


def folders() -> Iterator[Path]:
    """Every folder of the packages that contains Python files."""
    for package in PACKAGES:
        yield from sorted({path.parent for path in (ROOT / package).rglob("*.py")})


def _summary(path: Path) -> str:
    """The first paragraph of a module's docstring. Raises `ValueError` where there is none."""
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    if not text:
        raise ValueError(f"{path} needs a docstring: the table of folders quotes it")
    return " ".join(text.split("\n\n")[0].split())
