"""Finds a place for temporary folders."""

from __future__ import annotations

import os
import re
import tempfile
from pathlib import Path

from consisid_runtime.errors import OutputUnwritable

_PLAIN = re.compile(r"[A-Za-z0-9_./+-]+")


def temporary_folder(prefix: str, *, plain: bool = False) -> Path:
    """A new folder that only this user can read, in $TMPDIR or, where that cannot be used, in the system's places.

    Args:
        plain: its path has no space, no character that a shell reads and none outside of ASCII.

    Raises `OutputUnwritable` naming the places that were tried.
    """
    tried: dict[str, str] = {}
    chosen = [os.path.abspath(folder)] if (folder := os.environ.get("TMPDIR")) else []
    for place in dict.fromkeys([*chosen, "/tmp", "/var/tmp", "/dev/shm"]):
        if plain and not _PLAIN.fullmatch(place):
            tried[place] = "has a space or another special character"
            continue
        try:
            return Path(tempfile.mkdtemp(prefix=prefix, dir=place))
        except OSError as error:
            tried[place] = error.strerror or str(error)
    reasons = "; ".join(f"{place}: {reason}" for place, reason in tried.items())
    raise OutputUnwritable(f"no place for temporary files ({reasons}); set TMPDIR to a folder that can be written")
