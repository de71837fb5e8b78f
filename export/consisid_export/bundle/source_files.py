"""Finds the source files of this project that a module's imports lead to, without importing any of them."""

from __future__ import annotations

import ast
import functools
import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("consisid_kernels", "consisid_runtime", "consisid_export", "consisid_nano")


def imported_files(
    entries: Iterable[str], leads_to: Callable[[str, list[str]], Iterable[str]] = lambda module, names: names
) -> dict[str, Path]:
    """Module → its file, for `entries` and all that they import, directly or indirectly.

    Imports inside functions count; those under `if TYPE_CHECKING:` do not, and neither does the `__init__` of a package
    whose module is imported: it holds no code that the module needs.

    Args:
        leads_to: which of a module's imports are followed.
    """
    found: dict[str, Path] = {}
    waiting = list(entries)
    while waiting:
        module = waiting.pop()
        if module not in found:
            found[module] = file_of(module)
            waiting += leads_to(module, _imports(found[module]))
    return found


def file_of(module: str) -> Path:
    """The file of a module of this project. Raises `ModuleNotFoundError` where there is none."""
    path = _find(module)
    if path is None:
        raise ModuleNotFoundError(f"{module} is no module of {', '.join(PACKAGES)}", name=module)
    return path


def content(path: Path) -> bytes:
    """The bytes of a source file."""
    return path.read_bytes()


def file_digests(files: Mapping[str, Path]) -> dict[str, str]:
    """Name → hex SHA-256 of the file's content."""
    return {name: hashlib.sha256(content(path)).hexdigest() for name, path in files.items()}


@functools.cache
def strings(path: Path) -> set[str]:
    """The string constants in a file."""
    constants = (node.value for node in ast.walk(_tree(path)) if isinstance(node, ast.Constant))
    return {value for value in constants if isinstance(value, str)}


@functools.cache
def _tree(path: Path) -> ast.Module:
    return ast.parse(path.read_bytes())


@functools.cache
def _imports(path: Path) -> list[str]:
    return sorted({module for node in _statements(_tree(path)) for module in _modules(node)})


def _statements(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
            continue
        yield node
        yield from _statements(node)


def _modules(node: ast.AST) -> Iterator[str]:
    """The modules of this project that a statement imports."""
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names if _find(alias.name))
    elif isinstance(node, ast.ImportFrom) and node.module:
        for alias in node.names:
            nested = f"{node.module}.{alias.name}"
            if module := nested if _find(nested) else node.module if _find(node.module) else None:
                yield module


@functools.cache
def _find(module: str) -> Path | None:
    package, *names = module.split(".")
    if package not in PACKAGES:
        return None
    spec = find_spec(package)
    for folder in spec.submodule_search_locations or () if spec else ():
        path = Path(folder, *names)
        for file in (path.with_suffix(".py"), path / "__init__.py"):
            if file.is_file():
                return file
    return None
