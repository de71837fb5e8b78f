"""Reads a user's image file within a bound, undecoded; `stages.face.image` decodes it."""

from __future__ import annotations

import stat
from pathlib import Path

from consisid_runtime.errors import ImageTooLarge, ImageUnreadable

MAX_BYTES = 64 * 2**20


def image_bytes(image: str | Path | bytes | bytearray) -> bytes:
    """An image file's bytes, given as they are or by a path. Raises `ImageUnreadable`, `ImageTooLarge` above 64 MiB."""
    if not isinstance(image, bytes | bytearray):
        return read_file(image)
    check_bytes(len(image))
    return bytes(image)


def read_file(path: str | Path) -> bytes:
    """The bytes of an image file. Raises `ImageUnreadable` where there is none, `ImageTooLarge` above 64 MiB."""
    if not isinstance(path, str | Path):
        raise ImageUnreadable(f"the image must be a path or a file's bytes, got {type(path).__name__}")
    path = Path(path)
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise ImageUnreadable(f"{path} is a directory, device or pipe; name an image file")
        check_bytes(found.st_size)
        with path.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise ImageUnreadable(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ImageUnreadable(f"{str(path)!r} is no path: {error}") from error
    check_bytes(len(data))
    return data


def check_bytes(size: int) -> None:
    """Raises `ImageTooLarge` above 64 MiB."""
    if size > MAX_BYTES:
        raise ImageTooLarge(
            f"the file has {size / 2**20:.1f} MiB, at most {MAX_BYTES // 2**20} are read; make it smaller; faces are "
            "read at 1024 pixels on the long edge anyway"
        )
