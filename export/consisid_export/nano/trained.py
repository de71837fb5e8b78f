"""Unpacks the trained nano checkpoint from the distribution consisid-nano."""

from __future__ import annotations

import shutil
from pathlib import Path

from consisid_export.folders import replacing
from consisid_export.nano.marker import MARKER, is_intact, write_marker
from consisid_runtime.errors import CheckpointInvalid, MissingExtra


def unpack_nano(folder: Path) -> bool:
    """Copy the trained checkpoint into `folder`, unless exactly that one is there.

    Returns whether it was written. Raises `MissingExtra` without consisid-nano or its checkpoint, `CheckpointInvalid`
    where its files are not those that it was built with, and `OutputUnwritable`; nothing half-written remains.
    """
    try:
        import consisid_nano
        from consisid_nano import digests
    except ModuleNotFoundError as missing:
        raise MissingExtra(
            "the trained nano checkpoint is a distribution of its own: pip install consisid-nano (or --random for an "
            "untrained one)"
        ) from missing
    try:
        identity = {"trained": digests.recorded("checkpoint")["digest"]}
        if is_intact(folder, identity):
            return False
        digests.verified("checkpoint")
    except consisid_nano.DataMissing as missing:
        raise MissingExtra(str(missing)) from missing
    except consisid_nano.DataDamaged as damaged:
        raise CheckpointInvalid(str(damaged)) from damaged
    with replacing(folder, MARKER) as fresh:
        shutil.copytree(consisid_nano.checkpoint(), fresh, dirs_exist_ok=True)
        write_marker(fresh, identity)
    return True
