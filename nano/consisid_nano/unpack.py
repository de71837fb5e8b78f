"""Unpacks the trained nano checkpoint from the distribution consisid-nano."""

from __future__ import annotations

import shutil
from pathlib import Path

from consisid_nano import digests
from consisid_nano.marker import MARKER, is_intact, write_marker
from consisid_nano.package import DataDamaged, DataMissing, checkpoint
from consisid_runtime.errors import CheckpointInvalid, MissingExtra
from consisid_runtime.files.folders import replacing


def unpack_nano(folder: Path) -> bool:
    """Copy the trained checkpoint into `folder`, unless exactly that one is there.

    Returns whether it was written. Raises `MissingExtra` where this installation has no checkpoint,
    `CheckpointInvalid` where its files are not those that it was built with, and `OutputUnwritable`; nothing
    half-written remains.
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
        write_marker(fresh, identity)
    return True
