"""Opens files of a checkpoint: absent, unreadable and malformed ones, and git-lfs pointers, are `CheckpointInvalid`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.files import json_file

_POINTER = b"version https://git-lfs.github.com/spec/"


def require_content(path: Path) -> None:
    """Raises `CheckpointInvalid` for a file that is not there, cannot be read, is empty, or is a pointer of git-lfs."""
    with readable():
        if not path.exists():
            raise CheckpointInvalid("missing")
        if not path.is_file():
            raise CheckpointInvalid("is no file")
        with path.open("rb") as stream:
            start = stream.read(len(_POINTER))
    if start == _POINTER:
        raise CheckpointInvalid(
            "is a git-lfs pointer, not the file itself: install git-lfs and run `git lfs pull` in the checkpoint, "
            "or download the file"
        )
    if not start:
        raise CheckpointInvalid("is empty")


def read_json(path: Path) -> dict[str, Any]:
    """A file with one JSON object. Raises `CheckpointInvalid`, also for numbers that are not finite."""
    require_content(path)
    with readable():
        try:
            found = json_file.read_json(path)
        except ValueError as error:
            raise CheckpointInvalid(f"is not JSON ({one_line(error)})") from error
    if not isinstance(found, dict):
        raise CheckpointInvalid("expected a JSON object")
    return found


@contextmanager
def readable() -> Iterator[None]:
    """The system's errors as `CheckpointInvalid`."""
    try:
        yield
    except OSError as error:
        raise CheckpointInvalid(f"cannot be read ({error.strerror or one_line(error)})") from error


def one_line(error: object) -> str:
    """A message, at most 300 characters of it."""
    return " ".join(str(error).split())[:300]
