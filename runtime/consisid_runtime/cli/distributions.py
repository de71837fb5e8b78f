"""Which other distribution of this project a command or an import package belongs to, for where it is not installed."""

from __future__ import annotations

from typing import NamedTuple

from consisid_runtime.errors import MissingExtra


class Distribution(NamedTuple):
    """A distribution beside consisid-runtime.

    Attributes:
        requirement: what pip installs.
        package: its import package.
        commands: the sub-commands of `consisid` that it adds.
    """

    requirement: str
    package: str
    commands: tuple[str, ...]


DISTRIBUTIONS = (Distribution("consisid-nano[demo]", "consisid_nano", ("nano", "demo")),)


def missing_command(name: str) -> MissingExtra | None:
    """The error for an unknown sub-command, if a distribution is known to add it."""
    return next((_missing(f"`consisid {name}`", found) for found in DISTRIBUTIONS if name in found.commands), None)


def missing_module(name: str | None) -> MissingExtra | None:
    """The error for a module that cannot be imported, if it belongs to one of this project's distributions."""
    package = (name or "").partition(".")[0]
    return next((_missing("this command", found) for found in DISTRIBUTIONS if package == found.package), None)


def _missing(what: str, distribution: Distribution) -> MissingExtra:
    name = distribution.requirement.partition("[")[0]
    return MissingExtra(f"{what} needs {name}, which is not installed: pip install '{distribution.requirement}'")
