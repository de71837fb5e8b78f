"""Locates the data of this distribution. Needs only the standard library."""

from __future__ import annotations

from pathlib import Path

PACKAGE = Path(__file__).parent
DATA = ("checkpoint", "judges")


class DataMissing(Exception):
    """This installation of consisid-nano lacks the requested data."""


class DataDamaged(Exception):
    """Files of consisid-nano differ from those that it was built with."""


def checkpoint() -> Path:
    """Return the folder of nano, in ConsisID's official layout. Raises `DataMissing`."""
    return folder("checkpoint")


def judges() -> Path:
    """Return the folder of the networks that judge videos, trained separately from nano's. Raises `DataMissing`."""
    return folder("judges")


def folder(name: str) -> Path:
    """Return the folder of one of `DATA`. Raises `DataMissing`."""
    path = PACKAGE / name
    if not path.is_dir():
        raise DataMissing(
            f"consisid-nano at {PACKAGE} has no {name}; install the released wheel: pip install consisid-nano"
        )
    return path
