"""Writes the generated tables into a page: `python -m consisid_kernels.compile.readme kernels/README.md`."""

from __future__ import annotations

import sys
from pathlib import Path

from consisid_kernels.compile.caller_table import caller_table
from consisid_kernels.compile.cost_table import cost_table


def with_tables(page: str, repository: Path) -> str:
    """The page with the tables of costs and callers between their markers.

    Raises ValueError for a page without the markers.
    """
    for name, table in (("callers", caller_table(repository)), ("costs", cost_table())):
        begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
        before, rest = page.split(begin)
        page = f"{before}{begin}\n{table}\n{end}{rest.split(end)[1]}"
    return page


if __name__ == "__main__":
    path = Path(sys.argv[1])
    path.write_text(with_tables(path.read_text(), path.resolve().parents[1]))
