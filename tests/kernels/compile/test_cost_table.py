from pathlib import Path

from consisid_kernels.compile.cost_table import cost_table, insert

PAGE = Path(__file__).parents[3] / "kernels" / "README.md"


def test_the_page_has_the_table_of_these_budgets() -> None:
    assert insert(PAGE.read_text()) == PAGE.read_text()
    assert "| `joint_attention/bf16-d64` |" in cost_table()
