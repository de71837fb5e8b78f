"""Reads and writes `nano.json`, which records what a written checkpoint was made from and the digest of every file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from consisid_runtime.bundle import sha256
from consisid_runtime.files.json_file import read_json

MARKER = "nano.json"


def write_marker(folder: Path, identity: dict[str, Any]) -> None:
    """Write the marker of a finished folder."""
    (folder / MARKER).write_text(json.dumps({**identity, "files": _files(folder)}, indent=1))


def is_intact(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether `folder` was made from `identity` and holds exactly the files that were written."""
    try:
        marker = read_json(folder / MARKER)
        files = marker.pop("files")
        return bool(marker == identity and files == _files(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _files(folder: Path) -> dict[str, str]:
    found = sorted(file for file in folder.rglob("*") if file.is_file() and file != folder / MARKER)
    return {str(file.relative_to(folder)): sha256(file) for file in found}
