"""Reads a small file that a user names: a token, a certificate, a key."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from consisid_runtime.errors import FileInaccessible

_LARGEST = 2**20
"""Bytes that are read of a file."""


def read_small(path: Path, *, private: bool = False) -> bytes:
    """The first MiB of a regular file: a pipe would wait for its writer.

    Raises `FileInaccessible`, with `private` also for a file that other users may read or write.
    """
    try:
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            mode = os.fstat(file.fileno()).st_mode
            if not stat.S_ISREG(mode):
                raise FileInaccessible(f"{path} is a device or a pipe; name a file")
            if private and mode & (stat.S_IRWXG | stat.S_IRWXO):
                raise FileInaccessible(f"{path} has mode {stat.S_IMODE(mode):04o}: others can use it; chmod 600 {path}")
            return file.read(_LARGEST)
    except (OSError, ValueError) as error:
        raise FileInaccessible(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error
