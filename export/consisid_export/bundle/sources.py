"""A digest of our own code, so that what an older version wrote is not taken for what this one would write."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import consisid_export
import consisid_runtime


@functools.cache
def source_digest() -> str:
    """Hex SHA-256 over the exporter's sources and those of the networks and signatures it exports."""
    exporter, runtime = (Path(package.__path__[0]) for package in (consisid_export, consisid_runtime))
    files = [*exporter.rglob("*.py"), *(runtime / "models").rglob("*.py"), runtime / "signatures.py"]
    content = hashlib.sha256()
    for file in sorted(files, key=lambda file: file.name):
        content.update(file.read_bytes())
    return content.hexdigest()
