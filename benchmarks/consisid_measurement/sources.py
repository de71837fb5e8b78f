"""Finds the source files that figures depend on, and digests them: figures of other source files are stale."""

from __future__ import annotations

import ast
import functools
import hashlib
import io
import re
import tokenize
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

EXCLUDED = frozenset({"cli", "commands", "plots", "progress", "record", "report"})
"""Names of modules and folders that read arguments or show figures and progress; they measure nothing."""
_NAME = re.compile(r"\w[\w.-]*")


@dataclass(frozen=True, slots=True)
class Sources:
    """The source files that something was measured with.

    Attributes:
        entry: the suite's own files, relative to the repository's root.
        digest: hex SHA-256 of `source_files(root, entry)`.
    """

    entry: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, root: Path, entry: Iterable[Path | str]) -> Sources:
        """The present content of `entry`, files below `root`. Raises `OSError` for one that does not exist."""
        files = [(root / file).relative_to(root) for file in entry]
        return cls(tuple(file.as_posix() for file in files), _digest(root, files))

    @classmethod
    def from_json(cls, data: Mapping[str, Any] | None) -> Sources | None:
        """Inverts `dataclasses.asdict`; None for a record without a digest."""
        return None if data is None else cls(**{**data, "entry": tuple(data["entry"])})

    def current(self, root: Path) -> bool:
        """Whether the files below `root` still have this digest."""
        return all((root / file).is_file() for file in self.entry) and self == Sources.of(root, self.entry)


def source_files(root: Path, entry: Iterable[Path | str]) -> list[Path]:
    """The files in `entry`, what they import of this project's packages, directly or not, and the data of all these.

    Imports inside functions count, those under `if TYPE_CHECKING` do not. A package's `__init__` counts where it is
    imported by name. Data is every file or folder beside a source file that a string in it names, such as a kernel's
    table of tiles or the trained weights.

    Excluded, with what only they import, are modules with a name in `EXCLUDED`: the command line, reports, the form of
    records, plots and progress. Libraries are not followed: a record holds their versions.
    """
    packages = {folder.name: folder for folder in root.glob("*/consisid_*") if (folder / "__init__.py").is_file()}
    waiting, found, data = [root / file for file in entry], set[Path](), set[Path]()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            parsed = _parse(file.read_bytes())
            waiting += filter(None, (_file(name, packages) for name in parsed.imports))
            data.update(*(_data(file.parent / name) for name in parsed.strings))
    return sorted(found | data)


def _digest(root: Path, entry: Iterable[Path | str]) -> str:
    content = hashlib.sha256()
    for file in source_files(root, entry):
        read = file.read_bytes()
        content.update(f"{file.relative_to(root).as_posix()}\n".encode())
        content.update(hashlib.sha256(_parse(read).code if file.suffix == ".py" else read).digest())
    return content.hexdigest()


@dataclass(frozen=True, slots=True)
class _Parsed:
    """A Python file: what it may import, short strings, and its code without comments, docstrings and blank lines.

    Changed words change no figure, so that they are not in the digest.
    """

    imports: frozenset[str]
    strings: frozenset[str]
    code: bytes


@functools.lru_cache(maxsize=1024)
def _parse(content: bytes) -> _Parsed:
    text = content.decode()
    lines = text.split("\n")
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            row, column = token.start
            lines[row - 1] = lines[row - 1][:column]
    imports, strings = set[str](), set[str]()
    for node in _executed(ast.parse(text)):
        if isinstance(node, ast.Import):
            imports |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            imports |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Expr) and _is_string(node.value):
            first, last = node.lineno, node.end_lineno or node.lineno
            lines[first - 1 : last] = [""] * (1 + last - first)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and _NAME.fullmatch(node.value):
            strings.add(node.value)
    code = "\n".join(line.rstrip() for line in lines if line.strip()).encode()
    return _Parsed(frozenset(imports), frozenset(strings), code)


def _is_string(node: ast.expr) -> bool:
    return isinstance(node, ast.Constant) and isinstance(node.value, str)


def _executed(tree: ast.AST) -> Iterator[ast.AST]:
    """Every node outside of `if TYPE_CHECKING`."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        if not (isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING"):
            yield node
            waiting += ast.iter_child_nodes(node)


def _file(name: str, packages: Mapping[str, Path]) -> Path | None:
    """The file of a module of the project; None for a name that is none, or excluded."""
    package, *parts = name.split(".")
    if package not in packages or not EXCLUDED.isdisjoint(parts):
        return None
    path = packages[package].joinpath(*parts)
    return next((file for file in (path / "__init__.py", path.parent / f"{path.name}.py") if file.is_file()), None)


def _data(path: Path) -> Iterable[Path]:
    files = path.rglob("*") if path.is_dir() else [path]
    return (file for file in files if file.is_file() and file.suffix not in (".py", ".pyc"))
