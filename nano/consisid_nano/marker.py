"""Reads `nano.json`, which records what a written checkpoint was made from and the digest of every file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consisid_runtime.files.json_file import read_json
from consisid_runtime.files.ownership import content_digests, listed_files

MARKER = "nano.json"


def is_intact(folder: Path, identity: dict[str, Any]) -> bool:
    """Whether `folder` was made from `identity` and holds exactly the files that were written."""
    files = listed_files(folder / MARKER)
    try:
        made_from = read_json(folder / MARKER) if files is not None else {}
        return {key: made_from.get(key) for key in identity} == identity and files == content_digests(folder, MARKER)
    except (OSError, ValueError):
        return False
