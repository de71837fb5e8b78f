"""The curve of a checkpoint's clean latents, by which tiers skip steps: `change_curve.json` beside its folders.

`consisid curve CHECKPOINT` measures and writes it. A checkpoint without one has no tier that skips steps.
"""

from __future__ import annotations

import json
from pathlib import Path

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.files.atomic import write_file
from consisid_runtime.files.json_file import read_json
from consisid_runtime.tiers import Curve

FILE = "change_curve.json"


def read(folder: Path) -> Curve | None:
    """The checkpoint's curve, None where it has none. Raises `CheckpointInvalid` saying what is wrong with it."""
    if not (folder / FILE).is_file():
        return None
    try:
        return Curve.from_json(read_json(folder / FILE))
    except ValueError as error:
        raise CheckpointInvalid(str(error)) from error


def write(folder: Path, curve: Curve) -> Path:
    """Write the curve into the checkpoint; returns its path. Raises `OutputUnwritable`."""
    write_file(folder / FILE, json.dumps(curve.to_json()).encode() + b"\n")
    return folder / FILE
