"""Writes the table of kernel costs into a page: `python -m consisid_kernels.compile.cost_table kernels/README.md`."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from consisid_kernels.compile.aot import BUDGETS
from consisid_kernels.variant import MATRIX

BEGIN, END = "<!-- costs -->", "<!-- /costs -->"
_SHOWN = (
    "bf16",
    "bf16-c128",
    "bf16-c3072",
    "bf16-d64",
    "bf16-fp8e4nv-d64",
    "bf16-i8-d64",
    "channels-bf16-c128",
    "e4m3-d64-bf16",
    "int8-bf16-d64",
    "int8-d64-bf16",
)
"""Variants: the checkpoint's own dtype and head size."""


def cost_table() -> str:
    """Markdown: a row a kernel, a column an architecture, from `budgets.json`."""
    budgets: dict[str, dict[str, int]] = json.loads(BUDGETS.read_text())
    names = sorted({key.split()[0] for key in budgets if key.split()[0].partition("/")[2] in _SHOWN})
    head = [f"| kernel | {' | '.join(f'sm_{number}' for number in MATRIX)} |", "|---|" + "---|" * len(MATRIX)]
    return "\n".join(
        head + [f"| `{name}` | {' | '.join(_cell(budgets.get(f'{name} sm_{n}')) for n in MATRIX)} |" for name in names]
    )


def insert(page: str) -> str:
    """The page with the table between its markers."""
    before, rest = page.split(BEGIN)
    return f"{before}{BEGIN}\n{cost_table()}\n{END}{rest.split(END)[1]}"


def _cell(budget: dict[str, int] | None) -> str:
    if budget is None:
        return "–"
    matrix = f", {budget['matrix']} ×" if budget["matrix"] else ""
    return f"{budget['registers']}, {budget['shared'] / 1024:.0f} KiB{matrix}"


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(insert(page.read_text()))
