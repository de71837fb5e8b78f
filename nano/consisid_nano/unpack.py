"""Copies nano out of this distribution."""

from __future__ import annotations

import shutil
from pathlib import Path

from consisid_nano import digests
from consisid_nano.marker import MARKER, is_intact
from consisid_nano.package import DataDamaged, DataMissing, checkpoint
from consisid_runtime.errors import CheckpointInvalid, MissingExtra
from consisid_runtime.files.folders import replacing
from consisid_runtime.files.ownership import write_marker


def unpack_nano(folder: Path) -> bool:
    """Copy nano into `folder` atomically, unless `folder` already holds an intact copy.

    Returns whether it was written. Raises `MissingExtra` if this installation has no checkpoint, `CheckpointInvalid`
    if its files differ from those that it was built with, and `OutputUnwritable`.
    """
    try:
        identity = {"trained": digests.recorded("checkpoint")["digest"]}
        if is_intact(folder, identity):
            return False
        digests.verified("checkpoint")
    except DataMissing as missing:
        raise MissingExtra(str(missing)) from missing
    except DataDamaged as damaged:
        raise CheckpointInvalid(str(damaged)) from damaged
    with replacing(folder, MARKER) as fresh:
        shutil.copytree(checkpoint(), fresh, dirs_exist_ok=True)
        write_marker(fresh / MARKER, identity)
    return True
