"""Writes one file all or nothing, and finds out beforehand whether that can be done."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from consisid_runtime.errors import OutputUnwritable


def replace_file(path: Path, content: bytes) -> None:
    """Give `path` this content, or leave it as it was. Raises `OutputUnwritable` with the system's reason."""
    name = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.chmod(name, 0o644)
        os.replace(name, path)
    except OSError as error:
        raise OutputUnwritable(f"{path} cannot be written: {error.strerror}") from error
    finally:
        if name is not None:
            Path(name).unlink(missing_ok=True)


def require_folder(folder: Path) -> None:
    """Make `folder`. Raises `OutputUnwritable` if no file could be written into it: better known before the work."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=folder).close()
    except OSError as error:
        raise OutputUnwritable(f"nothing can be written into {folder}: {error.strerror}") from error
