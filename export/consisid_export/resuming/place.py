"""Where the work folder of an export lies, who holds it, and how its finished bundle gets to its place."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import secrets
import shutil
import socket
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

from consisid_runtime.errors import OutputBusy, OutputUnwritable
from consisid_runtime.files.folders import exchange
from consisid_runtime.files.ownership import WORK, replaced, require_ours

IDENTITY, PLACING = "identity", "placing"

_IDENTITY = re.compile("identity of a consisid export: [0-9a-f]{64}")
_ENTRIES = re.compile(rf"lock|{IDENTITY}|{PLACING}|bundle|records|scratch|{re.escape(WORK)}-[0-9a-f]+\.part")
_HOLDER = re.compile(r"(process \d+ on .+)?")


def identity_text(identity: str) -> str:
    """The content of the file `identity`."""
    return f"identity of a consisid export: {identity}"


def usable_root(out: Path) -> Path:
    """The work folder of an export to `out`, which is made.

    Beside `out`, so that an unfinished export is no part of it, unless files cannot be renamed from there to `out`.
    Raises `OutputUnwritable` for a folder of that name which is not ours, or where none can be made.
    """
    beside, inside = _roots(out)
    for root in (beside, inside):
        _require_root(root)
    if not inside.exists():
        try:
            beside.mkdir(parents=True, exist_ok=True)
            if not out.exists() or _reaches(beside, out):
                return beside
            with contextlib.suppress(OSError):
                beside.rmdir()
        except OSError as error:
            if not out.exists():
                raise OutputUnwritable(f"{out} cannot be written: {error.strerror}") from error
    try:
        inside.mkdir(exist_ok=True)
    except OSError as error:
        raise OutputUnwritable(f"{out} cannot be written: {error.strerror}") from error
    return inside


def finish(out: Path, marker: str) -> bool:
    """Finish what an export did not that ended while it moved its bundle to `out`; whether there was something to do.

    Raises `OutputBusy` while that export is running, `OutputUnwritable`.
    """
    for root in _roots(out):
        try:
            begun = (root / PLACING).is_dir()
        except OSError as error:
            raise OutputUnwritable(f"{out} cannot be written: {error.strerror}") from error
        if begun:
            _require_root(root)
            require_ours(out, marker, _markers(root, marker))
            with locked(root, out):
                place(root, out, marker)
                discard(root)
            return True
    return False


def place(root: Path, out: Path, marker: str) -> None:
    """Move the complete bundle of a work folder to `out`. Raises `OutputUnwritable`."""
    try:
        if out.exists():
            exchange(root / PLACING, out, marker)
        else:
            (root / PLACING).rename(out)
    except OSError as error:
        raise OutputUnwritable(f"the complete bundle cannot be moved to {out}: {error.strerror}") from error


def sweep(out: Path) -> None:
    """Remove what interrupted exports to `out` left, unless one is running."""
    for root in _roots(out):
        with contextlib.suppress(OutputBusy, OutputUnwritable):
            _require_root(root)
            if root.exists():
                with locked(root, out):
                    discard(root)


@contextlib.contextmanager
def locked(root: Path, out: Path) -> Iterator[None]:
    """Hold the work folder, which is made. Raises `OutputBusy` naming the process that holds it."""
    while True:
        try:
            root.mkdir(parents=True, exist_ok=True)
            file = (root / "lock").open("a+")
        except FileNotFoundError:
            continue  # another process finished just now and removed its folder
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            with file:
                holder = file.read() or "another process"
            raise OutputBusy(f"{holder} is exporting to {out}; wait for it, or choose another folder") from None
        if _is_at(file.fileno(), root / "lock"):
            break
        file.close()
    with file:
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}, since {datetime.now():%Y-%m-%d %H:%M:%S},")
        file.flush()
        yield


def discard(root: Path) -> None:
    """Remove the work folder that this process holds: what shows that it is ours at the end, its lock last."""
    for path in root.iterdir():
        if path.name not in (IDENTITY, "lock"):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink()
    for name in (IDENTITY, "lock"):
        (root / name).unlink(missing_ok=True)
    with contextlib.suppress(OSError):
        root.rmdir()  # another process may wait in it


def _roots(out: Path) -> tuple[Path, Path]:
    return out.parent / f".{out.name}.partial", out / f"{WORK}-partial"


def _markers(root: Path, marker: str) -> list[Path]:
    return [root / PLACING / name for name in (marker, replaced(marker))]


def _require_root(root: Path) -> None:
    """Raise `OutputUnwritable` for a folder with the name of a work folder that holds something else."""
    try:
        if not root.is_symlink() and not root.exists():
            return
        names = {path.name for path in root.iterdir()} if root.is_dir() and not root.is_symlink() else {""}
        ours = all(map(_ENTRIES.fullmatch, names)) and _is_signed(root, names)
    except OSError as error:
        if isinstance(error, FileNotFoundError):
            return  # removed just now by the process that finished
        raise OutputUnwritable(f"{error.filename or root} cannot be read: {error.strerror}") from error
    if not ours:
        raise OutputUnwritable(f"{root} is in the way: it is not the work folder of an export; move it elsewhere")


def _is_signed(root: Path, names: set[str]) -> bool:
    if IDENTITY in names:
        return _IDENTITY.fullmatch((root / IDENTITY).read_text(errors="replace")) is not None
    lock = (root / "lock").read_text(errors="replace") if "lock" in names else ""
    return names <= {"lock"} and _HOLDER.fullmatch(lock) is not None


def _reaches(root: Path, out: Path) -> bool:
    """Whether a file can be renamed from one folder to the other."""
    name = f"{WORK}-{secrets.token_hex(8)}.part"
    try:
        (root / name).touch(exist_ok=False)
        (root / name).rename(out / name)
    except OSError:
        return False
    finally:
        for folder in (root, out):
            (folder / name).unlink(missing_ok=True)
    return True


def _is_at(descriptor: int, path: Path) -> bool:
    return path.exists() and os.path.samestat(os.fstat(descriptor), path.stat())
