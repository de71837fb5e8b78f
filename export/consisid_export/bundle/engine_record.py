"""What both builders of TensorRT engines share: the record that the manifest keeps, and the cache of timings."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

NOT_RUN = {"kind": "structural", "reason": "built, but not run: that needs a GPU"}
"""The check of an engine."""


def kept(record: dict[str, Any]) -> dict[str, Any]:
    """What the manifest keeps of a build's record: all that does not differ between two builds of one engine."""
    return {key: value for key, value in record.items() if key != "seconds"}


def timing_cache() -> Path:
    """Where TensorRT keeps its timings of kernels: one file for all exports of this user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "consisid" / "tensorrt.timing"
