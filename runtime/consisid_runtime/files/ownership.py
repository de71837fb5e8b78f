"""Decides whether a folder was written by this project, so that it may be written again.

A folder is ours where its marker, a JSON file, has a format, a digest of itself and a list of the files beside it, and
nothing else lies in the folder. Other programs write files of the same names: a browser extension has a manifest.json.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any, TypeGuard

from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.files.atomic import write_file
from consisid_runtime.files.json_file import read_json

WORK = ".consisid"
"""What begins so in a folder that is written to belongs to a process that writes there, or was interrupted."""

FORMAT = 1
"""Of the markers that `write_marker` writes."""

_OF_THE_FILE_SYSTEM = "lost+found"


def manifest_digest(content: Mapping[str, Any]) -> str:
    """Hex SHA-256 of a JSON object without its `digest` entry, in canonical form (sorted keys, no spaces)."""
    without = {key: value for key, value in content.items() if key != "digest"}
    return hashlib.sha256(json.dumps(without, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_inside(name: object) -> TypeGuard[str]:
    """Whether a name in a list of files is the relative path of a file below the folder of the list.

    It says nothing of links: whoever can put a link into a folder can put its content there as well.
    """
    if not isinstance(name, str) or "\0" in name:
        return False
    path = PurePosixPath(name)
    return bool(path.parts) and not path.is_absolute() and ".." not in path.parts


def listed_files(marker: Path) -> dict[str, str] | None:
    """The files that a marker lists, with the SHA-256 of each; None where it is no marker of this project's."""
    try:
        content = read_json(marker)
        known = isinstance(content["format"], int) and content["digest"] == manifest_digest(content)
        files = {name: found if isinstance(found, str) else found["sha256"] for name, found in content["files"].items()}
    except (OSError, ValueError, TypeError, KeyError, AttributeError):
        return None
    return files if known and all(map(is_inside, files)) else None


def write_marker(path: Path, content: Mapping[str, Any]) -> None:
    """Write the marker of a finished folder: `content`, and the SHA-256 of every file that lies there.

    Raises `OutputUnwritable`, and `OSError` for a file that cannot be read.
    """
    marker: dict[str, Any] = {"format": FORMAT, **content, "files": content_digests(path.parent, path.name)}
    write_file(path, json.dumps(marker | {"digest": manifest_digest(marker)}, indent=1).encode())


def content_digests(folder: Path, marker: str = "") -> dict[str, str]:
    """Name → SHA-256 of every file in a folder but its marker. Raises `OSError`."""
    return {name: sha256(folder / name) for name in sorted(_names(folder)) if name != marker}


def require_ours(out: Path, marker: str, others: Iterable[Path] = ()) -> None:
    """Raise `OutputUnwritable` unless `out` is absent, empty, or a folder of ours, and nothing else is in it.

    A folder of ours may lack files, and files may be damaged, but not all of them.

    Args:
        others: further markers whose files may be there: those of a replacement that was interrupted.
    """
    try:
        reason = _foreign(out, marker, others)
    except OSError as error:
        raise OutputUnwritable(f"{error.filename or out} cannot be read: {error.strerror}") from error
    if reason:
        raise OutputUnwritable(f"{out} has content that is not ours ({reason}); choose another folder or remove it")


def markers(out: Path, marker: str) -> list[Path]:
    """The marker in `out` and those that an interrupted replacement keeps in work folders there."""
    found = [work / name for work in sorted(out.glob(f"{WORK}-*")) for name in (marker, replaced(marker))]
    return [path for path in (out / marker, *found) if path.is_file()]


def replaced(marker: str) -> str:
    """The name under which a work folder keeps the marker of the folder that is being replaced."""
    return f"{WORK}-replaced-{marker}"


def _foreign(out: Path, marker: str, others: Iterable[Path]) -> str:
    if not out.exists():
        return ""
    if not out.is_dir():
        return "it is a file"
    names = _names(out)
    if not names:
        return ""
    listings = [files for path in (*markers(out, marker), *others) if (files := listed_files(path)) is not None]
    if not listings:
        return f"it has no {marker} of ours"
    listed = {marker}.union(*listings)
    if unlisted := [name for name in names if name not in listed]:
        return unlisted[0]
    special = [name for name in names if not (out / name).is_file() and not (out / name).is_symlink()]
    if special:
        return f"{special[0]} is no regular file"
    present = [name for name in names if name != marker]
    if present and not any(_intact(out / name, files.get(name)) for name in present for files in listings):
        return f"no file is what its {marker} says"
    return ""


def _intact(path: Path, digest: str | None) -> bool:
    return digest is not None and path.is_file() and sha256(path) == digest


def _names(out: Path) -> list[str]:
    """What is no folder in `out`, the smallest first, without work folders. Raises `OSError` for a closed folder."""

    def refuse(error: OSError) -> None:
        raise error

    found: list[Path] = []
    for place, folders, files in os.walk(out, onerror=refuse):
        links = [name for name in folders if Path(place, name).is_symlink()]
        ignored = {_OF_THE_FILE_SYSTEM, *_work(folders + files)} if place == str(out) else set[str]()
        found += [Path(place, name) for name in (*files, *links) if name not in ignored]
        folders[:] = [name for name in folders if name not in ignored and name not in links]
    return [str(path.relative_to(out)) for path in sorted(found, key=lambda path: path.lstat().st_size)]


def _work(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if name.startswith(f"{WORK}-"))
