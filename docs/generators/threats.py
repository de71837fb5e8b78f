"""The tables of threats, from docs/threats.toml."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from generators.markdown import table

SOURCE = Path(__file__).parents[1] / "threats.toml"


def threats() -> list[dict[str, Any]]:
    """The rows, as the file has them."""
    found: list[dict[str, Any]] = _source()["threat"]
    return found


def who_table() -> str:
    """Markdown: who may try something."""
    return table(["who", ""], [[f"**{name}**", what] for name, what in _source()["who"].items()])


def protected_table() -> str:
    """Markdown: a row for each threat against which something stands, with its tests."""
    rows = [
        [row["name"], row["who"], row["against"], "<br>".join(map(_link, row["tests"]))]
        for row in threats()
        if "tests" in row
    ]
    return table(["threat", "who", "what stands against it", "proven by"], rows)


def unprotected_table() -> str:
    """Markdown: a row for each threat that is not protected against."""
    rows = [[row["name"], row["who"], f"not protected: {row['instead']}"] for row in threats() if "instead" in row]
    return table(["threat", "who", "what to do"], rows)


def _link(test: str) -> str:
    path, _, name = test.partition("::")
    return f"[{name}](../{path})"


def _source() -> dict[str, Any]:
    return tomllib.loads(SOURCE.read_text(encoding="utf-8"))
