"""Writes files atomically: the target appears complete or stays as it was."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consisid_runtime.errors import OutputUnwritable


def write_file(path: str | Path, content: bytes, *, parents: bool = False) -> None:
    """Give `path` this content, which is on disk when this returns. Raises what `replacing_file` raises.

    Args:
        parents: make missing folders.
    """
    if parents:
        require_folder(Path(path).parent)
    with replacing_file(path) as fresh:
        try:
            with fresh.open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise _unwritable(path, error) from error


@contextmanager
def replacing_file(path: str | Path) -> Iterator[Path]:
    """An empty file to write to, in the same folder, which replaces `path` when the block succeeds.

    Symbolic links are followed. Raises `OutputUnwritable` with the system's reason, also for a target that is a folder,
    device, pipe or socket, or lies in a folder that does not exist; and what the block raises.
    """
    target = _resolved(path)
    fresh = _create_beside(target)
    try:
        yield fresh
        try:
            os.replace(fresh, target)
        except OSError as error:
            raise _unwritable(path, error) from error
    finally:
        fresh.unlink(missing_ok=True)


def require_writable(path: str | Path) -> None:
    """Raises `OutputUnwritable` if `path` could not be written: call it before work whose result goes there."""
    _create_beside(_resolved(path)).unlink()


def require_folder(folder: Path) -> None:
    """Make `folder`. Raises `OutputUnwritable` if no file could be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputUnwritable(f"nothing can be written into {folder}: {error.strerror}") from error


def _resolved(path: str | Path) -> Path:
    try:
        target = Path(path).resolve()
        if target.is_dir():
            raise OutputUnwritable(f"{target} is a folder; name a file in it")
        if target.exists() and not target.is_file():
            raise OutputUnwritable(f"{target} is a device, pipe or socket, which would be replaced; name another file")
        if not target.parent.is_dir():
            raise OutputUnwritable(f"cannot write {target}: the folder {target.parent} does not exist; create it first")
    except (OSError, RuntimeError, ValueError) as error:  # also a loop of links, a NUL
        raise _unwritable(path, error) from error
    return target


def _create_beside(target: Path) -> Path:
    """An empty file in the target's folder: within one folder `os.replace` is atomic."""
    fresh = target.parent / f".consisid-{secrets.token_hex(8)}.part"
    try:
        fresh.touch(exist_ok=False)
    except OSError as error:
        raise _unwritable(target, error) from error
    return fresh


def _unwritable(target: str | Path, error: Exception) -> OutputUnwritable:
    reason = getattr(error, "strerror", None) or error
    return OutputUnwritable(f"cannot write {str(target)!r}: {reason}; choose another place for the file")
