"""Objects as files of a folder, which outlive a loss of power: what obstore writes itself waits for no disk."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from pathlib import Path

_TRIES = 5
"""Of making a file's folders, while another process removes them because its own object was the last one in them."""


class Folder:
    """Files are for this user alone. Methods raise `OSError`.

    Args:
        root: exists.
    """

    def __init__(self, root: Path) -> None:
        self._root = root

    def write(self, key: str, content: bytes) -> None:
        """On disk when this returns; replaces what was there at once, or changes nothing."""
        path = self._root / key
        # obstore lists no such names.
        fresh = path.with_name(f"{path.name}#{secrets.randbits(48)}")
        for tries_left in reversed(range(_TRIES)):
            try:
                self._make(path.parent)
                descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                break
            except FileNotFoundError:
                if not tries_left:
                    raise
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(descriptor)
            fresh.rename(path)
        except BaseException:
            fresh.unlink(missing_ok=True)
            raise
        _sync(path.parent)

    def latest(self, parent: str) -> dict[str, float]:
        """Name of each folder below `parent` → when something in it was written, in seconds since 1970.

        Also of one with nothing but what a process left that was killed while it wrote.
        """
        found: dict[str, float] = {}
        with contextlib.suppress(FileNotFoundError):
            for entry in os.scandir(self._root / parent):
                if entry.is_dir(follow_symlinks=False):
                    with contextlib.suppress(FileNotFoundError):  # removed meanwhile
                        folder = Path(entry.path)
                        found[entry.name] = max(path.lstat().st_mtime for path in (folder, *folder.rglob("*")))
        return found

    def remove_all(self, prefix: str) -> None:
        """A folder below the root with what is in it, also what a process left that was killed while it wrote."""
        with contextlib.suppress(FileNotFoundError):
            shutil.rmtree(self._root / prefix)

    def _make(self, folder: Path) -> None:
        if folder.is_dir():
            return
        self._make(folder.parent)
        folder.mkdir(mode=0o700, exist_ok=True)
        _sync(folder.parent)


def _sync(folder: Path) -> None:
    """A file's name is on disk when its folder is."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
