"""Finds the source files that figures depend on, and digests them: figures of other source files are stale."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from consisid_export.bundle.source_files import digestible, parse

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
        """Whether the files below `root` still have this digest; not, where one of them is no Python any more."""
        try:
            return all((root / file).is_file() for file in self.entry) and self == Sources.of(root, self.entry)
        except SyntaxError:
            return False


def source_files(root: Path, entry: Iterable[Path | str]) -> list[Path]:
    """The files in `entry`, what they import of this project's packages, directly or not, and the data of all these.

    Imports inside functions count, and modules that a string names; those under `if TYPE_CHECKING` do not. A package's
    `__init__` counts where it is imported by name. Data is every file or folder beside a source file that a string in
    it names, such as a kernel's table of tiles or the trained weights.

    Excluded, with what only they import, are modules with a name in `EXCLUDED`: the command line, reports, the form of
    records, plots and progress. Libraries are not followed: a record holds their versions.
    """
    packages = {folder.name: folder for folder in root.glob("*/consisid_*") if (folder / "__init__.py").is_file()}
    waiting, found, data = [root / file for file in entry], set[Path](), set[Path]()
    while waiting:
        file = waiting.pop()
        if file not in found:
            found.add(file)
            parsed = parse(file.read_bytes())
            # Tables of engines and builders name modules as strings.
            named = ((string,) for string in parsed.strings if "." in string)
            waiting += filter(None, (_file(names, packages) for names in (*parsed.imports, *named)))
            data.update(*(_data(file.parent / name) for name in parsed.strings if _NAME.fullmatch(name)))
    return sorted(found | data)


def _digest(root: Path, entry: Iterable[Path | str]) -> str:
    content = hashlib.sha256()
    for file in source_files(root, entry):
        content.update(f"{file.relative_to(root).as_posix()}\n".encode())
        content.update(hashlib.sha256(digestible(file.suffix, file.read_bytes())).digest())
    return content.hexdigest()


def _file(names: tuple[str, ...], packages: Mapping[str, Path]) -> Path | None:
    """The file of the first name that is a module of the project; None where none is, or where it is excluded."""
    for name in names:
        package, *parts = name.split(".")
        if package in packages:
            path = packages[package].joinpath(*parts)
            for file in (path / "__init__.py", path.parent / f"{path.name}.py"):
                if file.is_file():
                    return file if EXCLUDED.isdisjoint(parts) else None
    return None


def _data(path: Path) -> Iterable[Path]:
    files = path.rglob("*") if path.is_dir() else [path]
    return (file for file in files if file.is_file() and file.suffix not in (".py", ".pyc"))
