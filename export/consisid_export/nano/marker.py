"""`nano.json` in a checkpoint written here: what it was made from, and the digest of every file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from consisid_runtime.bundle import sha256

MARKER = "nano.json"


def write_marker(folder: Path, identity: dict[str, Any]) -> None:
    """Record the files of a finished folder."""
    files = {str(f.relative_to(folder)): sha256(f) for f in sorted(folder.rglob("*")) if f.is_file()}
    (folder / MARKER).write_text(json.dumps({**identity, "files": files}, indent=1))


def is_intact(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether `folder` was made from the same, and every file is as it was written."""
    try:
        marker = json.loads((folder / MARKER).read_bytes())
        files = marker.pop("files")
        return bool(marker == identity and all(sha256(folder / name) == digest for name, digest in files.items()))
    except (OSError, ValueError, KeyError, AttributeError):
        return False
