"""Writes a folder: it appears complete, or what was there stays.

A folder that does not exist yet appears by one rename. One that exists is never renamed or removed: it may be a mount
point, somebody's current folder, or lie in a folder that this user cannot write to. Its files are exchanged one by one,
the marker last, so that a half-exchanged folder has none and is not opened.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from consisid_runtime.errors import ConsisIDError, OutputUnwritable
from consisid_runtime.files.atomic import replacing_file
from consisid_runtime.files.ownership import WORK, listed_files, markers, replaced, require_ours


@contextlib.contextmanager
def replacing(out: Path, marker: str) -> Iterator[Path]:
    """A fresh folder whose content takes the place of that of `out` when the block succeeds.

    Args:
        marker: the file that identifies a folder written by this project; no other folder with content is replaced.

    Raises `OutputUnwritable` where `out` is something else, or the operating system refuses to write.
    """
    out = target_folder(out)
    require_ours(out, marker)
    with _typed(out, "nothing was left behind"):
        parent = out if out.exists() else out.parent
        parent.mkdir(parents=True, exist_ok=True)
        folder = parent / f"{WORK}-{secrets.token_hex(8)}"
        folder.mkdir()
        try:
            yield folder
            if parent != out:
                folder.rename(out)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    if parent == out:
        with _typed(out, "the same command goes on from there"):
            exchange(folder, out, marker)


def exchange(folder: Path, out: Path, marker: str) -> None:
    """Move the content of `folder` into `out`, remove what else an earlier marker lists there, and remove `folder`.

    Interrupted, it is finished by the same call: until then the markers are in `folder`. Raises `OSError`.
    """
    aside = folder / replaced(marker)
    with _one_at_a_time(out):
        if (out / marker).is_file() and (folder / marker).is_file():
            shutil.copyfile(out / marker, aside)
            (out / marker).unlink()
        left = [path for path in markers(out, marker) if path.parent not in (out, folder)]
        old = {name for path in (*left, aside) for name in listed_files(path) or ()}
        for name in sorted(old - (listed_files(folder / marker) or {}).keys()):
            _remove(out / name, out)
        for path in sorted(folder.rglob("*")):
            if not path.is_dir() and path not in (folder / marker, aside):
                move(path, out / path.relative_to(folder))
        if (folder / marker).is_file():
            move(folder / marker, out / marker)
        shutil.rmtree(folder, ignore_errors=True)
        for path in left:
            for name in (*(listed_files(path) or ()), path.name):
                _remove(path.parent / name, out)


def _remove(path: Path, above: Path) -> None:
    """Remove a file, and the folders around it below `above` that are empty then."""
    path.unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        while path.parent != above:
            path = path.parent
            path.rmdir()


@contextlib.contextmanager
def _one_at_a_time(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder, where its file system has one."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def move(source: Path, target: Path) -> None:
    """Rename a file, replacing the one at `target` at once; between file systems, copy it first. Raises `OSError`."""
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.is_dir() and not target.is_symlink():
        target.rmdir()  # an empty one: all others are refused before
    try:
        os.replace(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with replacing_file(target) as fresh:
            shutil.copyfile(source, fresh)
        source.unlink()


def target_folder(out: str | Path) -> Path:
    """`out` without links and relative parts. Raises `OutputUnwritable` for what is no path."""
    try:
        return Path(out).resolve()
    except (OSError, RuntimeError, ValueError) as error:  # the current folder was removed, a loop of links, a NUL
        raise OutputUnwritable(f"{str(out)!r} is no folder to write to: {error}") from error


def require_place(out: Path, marker: str, others: Iterable[Path] = ()) -> None:
    """Raise `OutputUnwritable` unless `out` is ours or free, and can be written: call it before work for `out`."""
    require_ours(out, marker, others)
    try:
        folder = next(path for path in (out, *out.parents) if path.exists())
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputUnwritable(f"{out} cannot be written: {disk_reason(error)}") from error


@contextlib.contextmanager
def _typed(out: Path, left: str) -> Iterator[None]:
    try:
        yield
    except ConsisIDError:
        raise
    except Exception as error:
        reason = disk_reason(error)
        if reason is None:
            raise
        raise OutputUnwritable(f"{out} cannot be written: {reason}; {left}") from error


def disk_reason(error: BaseException) -> str | None:
    """The system's reason, where an error means that writing failed; libraries wrap a full disk in their own errors."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return str(error) if any(os.strerror(number) in str(error) for number in full) else None
