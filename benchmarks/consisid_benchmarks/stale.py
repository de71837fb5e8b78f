"""Marks figures whose source files have changed since they were measured."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from consisid_measurement.sources import Sources

CURRENT, CELL = "current", "**stale**"
"""In a table: the figures are those of the present source files, or may not be."""
COMMANDS = {"export": "consisid bench export --full FOLDER", "fidelity": "consisid bench fidelity-nano"}
"""Suite → command that measures it, where that is not `consisid bench SUITE`."""
_LINE = re.compile(r"^\*\*Stale:\*\* .*\n\n", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Stale:
    """A record whose figures the present source files may not give.

    Attributes:
        record: path relative to the root. commit: the one measured, None where the record has none.
        reason: what follows "measured at commit X". command: measures again.
    """

    record: str
    commit: str | None
    reason: str
    command: str

    def __str__(self) -> str:
        return f"{self.record}: {self._measured}; measure again with `{self.command}`"

    @property
    def line(self) -> str:
        """One line of Markdown for above a table."""
        return f"**Stale:** {self._measured}."

    @property
    def _measured(self) -> str:
        return f"measured at commit `{self.commit or 'unknown'}`; {self.reason}"


def reason(root: Path, sources: Sources | None) -> str:
    """Why figures of these source files are stale; "" if they are not."""
    if sources is None:
        return "the record has no digest of the suite's files"
    return "" if sources.current(root) else "files of the suite have changed since"


def command(suite: str) -> str:
    """What measures a suite."""
    return COMMANDS.get(suite, f"consisid bench {suite}")


def unmarked(text: str) -> str:
    """A page without its marks: it depends on records alone, not on the present source files."""
    return _LINE.sub("", text).replace(f" ({CELL})", "").replace(f"| {CELL} |", f"| {CURRENT} |")
