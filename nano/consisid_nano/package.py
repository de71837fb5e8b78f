"""Where the data of this distribution lies. Importing it needs nothing but Python."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
DATA = ("checkpoint", "judges")


class DataMissing(Exception):
    """This installation of consisid-nano does not hold what was asked for."""


class DataDamaged(Exception):
    """Files of consisid-nano are not those that it was built with."""


def checkpoint() -> Path:
    """Folder of the trained checkpoint, in ConsisID's official layout. Raises `DataMissing`."""
    return folder("checkpoint")


def judges() -> Path:
    """Folder of the networks that judge videos, trained apart from the checkpoint's own. Raises `DataMissing`."""
    return folder("judges")


def folder(name: str) -> Path:
    """One of `DATA`. Raises `DataMissing`."""
    path = PACKAGE / name
    if not path.is_dir():
        raise DataMissing(f"consisid-nano at {PACKAGE} has no {name}; install one that has: pip install consisid-nano")
    return path
