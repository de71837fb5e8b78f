"""The table of engines, from the exporter's builders and the engines that run what they write."""

from __future__ import annotations

from consisid_export.bundle.builders import BUILDERS, support
from consisid_runtime.engines.table import ENGINES
from generators.markdown import table


def engine_table() -> str:
    """Markdown: a row for each engine of `consisid export` and each extra that it runs with."""
    rows = [
        [
            f"`{row.engine}`",
            f"`{ENGINES[BUILDERS[row.engine].engine].suffix}`",
            row.device,
            f"`[{row.extra}]`",
            ", ".join(row.precisions),
        ]
        for row in support()
    ]
    return table(["`--engine`", "file", "device", "extra", "precisions"], rows)
