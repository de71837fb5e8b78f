"""Writes a folder all or nothing."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from consisid_runtime.errors import ConsisIDError, OutputUnwritable


@contextlib.contextmanager
def replacing(out: Path, marker: str) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place when the block succeeds, and is removed when it does not.

    Args:
        marker: the file that tells a folder of ours; any other folder with content is left alone.

    Raises `OutputUnwritable` where `out` is something else, or the operating system refuses to write.
    """
    if out.exists() and not (out / marker).is_file() and (not out.is_dir() or any(out.iterdir())):
        raise OutputUnwritable(f"{out} exists and has no {marker}; choose another folder or remove it")
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(prefix=f".{out.name}-", dir=out.parent))
    except OSError as error:
        raise OutputUnwritable(f"{out} cannot be written: {error.strerror}") from error
    try:
        yield folder
        folder.chmod(0o755)
        _swap(folder, out)
    except ConsisIDError:
        raise
    except Exception as error:
        reason = _disk_reason(error)
        if reason is None:
            raise
        raise OutputUnwritable(f"{out} cannot be written: {reason}; nothing was left behind") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _swap(folder: Path, out: Path) -> None:
    old = out.with_name(f"{folder.name}.old")
    if out.exists():
        out.rename(old)
    folder.rename(out)
    shutil.rmtree(old, ignore_errors=True)


def _disk_reason(error: BaseException) -> str | None:
    """The operating system's reason, where writing failed; libraries wrap a full disk in errors of their own."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return str(error) if os.strerror(errno.ENOSPC) in str(error) else None
