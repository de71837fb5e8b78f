"""Sections of pages that derive from the code are what the code would write; every page and folder is in an index."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import generate
from consisid_runtime import wire
from generators import tree


@pytest.mark.parametrize("page", generate.SECTIONS)
def test_a_page_is_up_to_date(page: str) -> None:
    text = (generate.DOCS / page).read_text(encoding="utf-8")
    assert generate.generated(page) == text, "run `make generate`"


def test_every_package_is_in_the_table_of_folders(root: Path) -> None:
    packages = {path.parent.relative_to(root).as_posix() for path in root.glob("*/consisid_*/__init__.py")}
    packages |= {path.parent.relative_to(root).as_posix() for path in root.glob("*/*/consisid_*/__init__.py")}
    assert packages == set(tree.PACKAGES)


def test_the_tour_names_every_folder_and_root_module(root: Path, pages: dict[str, str]) -> None:
    page = pages["docs/life-of-a-request.md"]
    folders = [folder.relative_to(root).as_posix() for folder in tree.folders()]
    modules = [path.name for path in (root / tree.VOCABULARY).glob("*.py") if path.name != "__init__.py"]
    assert [name for name in [*(f"{folder}/" for folder in folders), *modules] if f"`{name}`" not in page] == []


def test_the_index_links_every_page(root: Path, pages: dict[str, str]) -> None:
    linked = set(re.findall(r"\]\(([^)#]+)", pages["docs/README.md"]))
    assert {path.name for path in (root / "docs").glob("*.md")} - {"README.md"} <= linked


def test_readme_fits_into_two_minutes(pages: dict[str, str]) -> None:
    assert len(pages["README.md"].splitlines()) <= 120


def test_every_variable_that_the_code_reads_is_documented(root: Path, pages: dict[str, str]) -> None:
    read: set[str] = set()
    for folder in tree.folders():
        for path in folder.glob("*.py"):
            text = path.read_text(encoding="utf-8")
            if "os." in text:
                read |= {name for node in ast.walk(ast.parse(text)) if (name := _variable(node))}
    assert {"CONSISID_BUNDLE", "CONSISID_DEVICE", "CONSISID_PACKAGE", "CONSISID_VERIFIED", "XDG_CACHE_HOME"} <= read
    assert [name for name in sorted(read) if f"`{name}`" not in pages["docs/environment.md"]] == []


def _variable(node: ast.AST) -> str | None:
    """The name in `os.environ[…]`, `os.environ.get(…)` or `os.getenv(…)`; None for other nodes."""
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == "os.environ":
        key = node.slice
    elif isinstance(node, ast.Call) and ast.unparse(node.func) in ("os.environ.get", "os.getenv"):
        key = node.args[0]
    else:
        return None
    if isinstance(key, ast.Name):
        # `name` is the parameter of a function that prepends to PATH and LD_LIBRARY_PATH.
        return None if key.id == "name" else getattr(wire, key.id)
    assert isinstance(key, ast.Constant)
    return str(key.value)
