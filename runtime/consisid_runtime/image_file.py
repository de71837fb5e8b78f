"""A user's image as a file's bytes: all that the client needs to know of it; image.py decodes it."""

from __future__ import annotations

from pathlib import Path

from consisid_runtime.errors import ImageTooLarge, ImageUnreadable

MAX_BYTES = 64 * 2**20


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file. Raises `ImageUnreadable` where there is none, `ImageTooLarge` above 64 MiB."""
    path = Path(path)
    try:
        check_bytes(path.stat().st_size)
        return path.read_bytes()
    except OSError as error:
        raise ImageUnreadable(f"{path} cannot be read: {error.strerror}") from error


def check_bytes(size: int) -> None:
    """Raises `ImageTooLarge` above 64 MiB."""
    if size > MAX_BYTES:
        raise ImageTooLarge(
            f"the file has {size / 2**20:.1f} MiB, at most {MAX_BYTES // 2**20} are read; make it smaller; faces are "
            "read at 1024 pixels on the long edge anyway"
        )
