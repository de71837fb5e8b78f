"""The generated tables of kernels/README.md are those of the code."""

from pathlib import Path

from consisid_kernels.compile.cost_table import cost_table
from consisid_kernels.compile.readme import with_tables

REPOSITORY = Path(__file__).parents[3]


def test_the_tables_are_current() -> None:
    page = (REPOSITORY / "kernels" / "README.md").read_text()
    assert with_tables(page, REPOSITORY) == page


def test_costs_are_listed_for_each_kernel() -> None:
    assert "| `joint_attention/bf16-d64` |" in cost_table()
