"""Writes a folder atomically."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from consisid_runtime.errors import ConsisIDError, OutputUnwritable
from consisid_runtime.files.json_file import read_json


@contextlib.contextmanager
def replacing(out: Path, marker: str) -> Iterator[Path]:
    """A fresh folder beside `out` that takes its place when the block succeeds, and is removed when it does not.

    Args:
        marker: the file that identifies a folder written by this project; no other folder with content is replaced.

    Raises `OutputUnwritable` where `out` is something else, or the operating system refuses to write.
    """
    out = out.resolve()
    require_ours(out, marker)
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
        reason = disk_reason(error)
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


def require_ours(out: Path, marker: str) -> None:
    """Raise `OutputUnwritable` unless `out` is absent, empty, or holds nothing but what its `marker` lists.

    The listing is needed because other programs write files of that name too: a browser extension has a
    `manifest.json`.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    foreign = _foreign(out, marker)
    if foreign is not None:
        raise OutputUnwritable(f"{out} has content that is not ours ({foreign}); choose another folder or remove it")


def _foreign(out: Path, marker: str) -> str | None:
    """What in `out` is not listed by its marker, or that it has no marker; None where everything is listed."""
    if not out.is_dir():
        return "it is a file"
    try:
        listed = {marker, *read_json(out / marker)["files"]}
    except (OSError, ValueError, TypeError, KeyError):
        return f"it has no {marker} of ours"
    found = (str(path.relative_to(out)) for path in sorted(out.rglob("*")) if not path.is_dir())
    return next((name for name in found if name not in listed), None)


def disk_reason(error: BaseException) -> str | None:
    """The system's reason, where an error means that writing failed; libraries wrap a full disk in their own errors."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return str(error) if any(os.strerror(number) in str(error) for number in full) else None
