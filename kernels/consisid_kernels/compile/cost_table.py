"""The table of kernel costs for `kernels/README.md`, from `budgets.json`."""

from __future__ import annotations

import json

from consisid_kernels.compile.aot import BUDGETS
from consisid_kernels.variant import MATRIX

_SHOWN = (
    "bf16",
    "bf16-c128",
    "bf16-c3072",
    "bf16-d64",
    "channels-bf16-c128",
    "gelu-bf16-c12288",
)
"""Variants in the checkpoint's own dtype and head size."""


def cost_table() -> str:
    """Markdown: a row a kernel, a column an architecture, from `budgets.json`."""
    budgets: dict[str, dict[str, int]] = json.loads(BUDGETS.read_text())
    names = sorted({key.split()[0] for key in budgets if key.split()[0].partition("/")[2] in _SHOWN})
    head = [f"| kernel | {' | '.join(f'sm_{number}' for number in MATRIX)} |", "|---|" + "---|" * len(MATRIX)]
    return "\n".join(
        head + [f"| `{name}` | {' | '.join(_cell(budgets.get(f'{name} sm_{n}')) for n in MATRIX)} |" for name in names]
    )


def _cell(budget: dict[str, int] | None) -> str:
    if budget is None:
        return "–"
    matrix = f", {budget['matrix']} ×" if budget["matrix"] else ""
    return f"{budget['registers']}, {budget['shared'] / 1024:.0f} KiB{matrix}"
