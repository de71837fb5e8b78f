"""Disks and shared memory that are full for one server alone: small file systems in a mount namespace of its own."""

from __future__ import annotations

import errno
import functools
import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

_MOUNT = """
while [ "$1" != -- ]; do mkdir -p "$2"; mount -t tmpfs -o "$1" none "$2" || exit 99; shift 2; done
shift; exec "$@"
"""


def command(*mounts: tuple[str, Path]) -> list[str]:
    """What starts a command that sees these file systems, each with its options of tmpfs and its folder."""
    flat = [str(word) for mount in mounts for word in mount]
    return [*_unshare(), "sh", "-c", _MOUNT, "sh", *flat, "--"]


@functools.cache
def _unshare() -> Sequence[str]:
    """Root may do it; others in a user namespace, where the kernel lets them."""
    for flags in ("-m", "-Urm"):
        tried = ["unshare", flags, "mount", "-t", "tmpfs", "none", "/mnt"]
        if subprocess.run(tried, capture_output=True, check=False).returncode == 0:
            return "unshare", flags
    pytest.skip("no file system can be mounted here")


def seen_by(process: int, path: Path) -> Path:
    """A path in the namespace of a process."""
    return Path(f"/proc/{process}/root{path}")


def fill(folder: Path) -> Path:
    """Write until nothing fits; returns the file to remove."""
    file = folder / "filling"
    with file.open("wb", buffering=0) as out:
        for size in (2**20, 2**12):
            while _fits(out.fileno(), size):
                pass
    assert os.statvfs(folder).f_bavail == 0
    return file


def use_up_names(folder: Path) -> list[Path]:
    """Create empty files until there can be no more; returns those to remove."""
    made = []
    while True:
        file = folder / f"name-{len(made)}"
        try:
            file.touch()
        except OSError as error:
            assert error.errno == errno.ENOSPC
            return made
        made.append(file)


def _fits(file: int, size: int) -> bool:
    try:
        return os.write(file, bytes(size)) == size
    except OSError as error:
        assert error.errno == errno.ENOSPC
        return False
