"""Writes files atomically: the target appears complete or stays as it was."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from consisid_runtime.errors import OutputUnwritable

_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


def write_file(path: str | Path, content: bytes, *, parents: bool = False) -> None:
    """Give `path` this content, which is on disk when this returns. Raises what `replacing_file` raises.

    A file that cannot be replaced, because it is a mount point or its folder is closed to this user, is overwritten in
    place. Where that fails as well, the message names the file in which the content was kept.

    Args:
        parents: make missing folders.
    """
    if parents:
        require_folder(Path(path).parent)
    target = _resolved(path)
    _require_open(target)
    try:
        fresh = _create_beside(target)
    except OutputUnwritable:
        if not target.exists():
            raise
        _overwrite(target, content)
        return
    try:
        _fill(fresh, content, target)
        replaced = _replace(fresh, target)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
    if not replaced:
        try:
            _overwrite(target, content)
        except OutputUnwritable as error:
            raise OutputUnwritable(f"{error}; the content was kept in {fresh}") from error
        fresh.unlink(missing_ok=True)


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
    """Raises `OutputUnwritable` if `write_file` could not write `path`: call it before work whose result goes there."""
    target = _resolved(path)
    _require_open(target)
    if not target.exists():
        _create_beside(target).unlink()


def require_folder(folder: Path) -> None:
    """Make `folder`. Raises `OutputUnwritable` if no file could be written into it."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OutputUnwritable(f"nothing can be written into {folder}: {reason}") from error


def _resolved(path: str | Path) -> Path:
    try:
        # The path itself: /dev/stdout resolves to a name that does not exist.
        found = Path(path)
        target = found.resolve()
        if found.is_dir():
            raise OutputUnwritable(f"{target} is a folder; name a file in it")
        if found.exists() and not found.is_file():
            raise OutputUnwritable(f"{found} is a device, pipe or socket, which would be replaced; name another file")
        if not target.parent.is_dir():
            raise OutputUnwritable(f"cannot write {target}: the folder {target.parent} does not exist; create it first")
    except (OSError, RuntimeError, ValueError) as error:  # also a loop of links, a NUL
        raise _unwritable(path, error) from error
    return target


def _require_open(target: Path) -> None:
    """Raises `OutputUnwritable` for a file that this user may not write: its folder may let it be replaced anyway."""
    try:
        if target.exists():
            os.close(os.open(target, os.O_WRONLY | os.O_NONBLOCK))
    except OSError as error:
        raise _unwritable(target, error) from error


def _create_beside(target: Path) -> Path:
    """An empty file in the target's folder: within one folder `os.replace` is atomic."""
    fresh = target.parent / f".consisid-{secrets.token_hex(8)}.part"
    try:
        fresh.touch(exist_ok=False)
    except OSError as error:
        raise _unwritable(target, error) from error
    return fresh


def _fill(fresh: Path, content: bytes, target: Path) -> None:
    try:
        with fresh.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise _unwritable(target, error) from error


def _replace(fresh: Path, target: Path) -> bool:
    """Whether `fresh`, with the permissions of the file at `target`, could be renamed to it."""
    try:
        if target.exists():
            shutil.copymode(target, fresh)
        os.replace(fresh, target)
    except OSError as error:
        if not target.exists():
            raise _unwritable(target, error) from error
        return False
    return True


def _overwrite(target: Path, content: bytes) -> None:
    """Write a file in place; where the space does not suffice, it keeps its content."""
    try:
        descriptor = os.open(target, os.O_WRONLY)
        with os.fdopen(descriptor, "wb") as file:
            _reserve(descriptor, len(content))
            file.write(content)
            file.truncate()
            file.flush()
            os.fsync(descriptor)
    except OSError as error:
        raise _unwritable(target, error) from error


def _reserve(descriptor: int, size: int) -> None:
    before = os.fstat(descriptor).st_size
    try:
        if size > before:
            os.posix_fallocate(descriptor, 0, size)
    except OSError as error:
        if error.errno in _FULL:
            with contextlib.suppress(OSError):
                os.ftruncate(descriptor, before)
            raise  # any other: this file system reserves nothing


def _unwritable(target: str | Path, error: Exception) -> OutputUnwritable:
    reason = getattr(error, "strerror", None) or error
    return OutputUnwritable(f"cannot write {str(target)!r}: {reason}; choose another place for the file")
