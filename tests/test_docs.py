"""Pages that are written from the code are what the code would write."""

from pathlib import Path

from consisid_export.tensor_table import insert

ROOT = Path(__file__).parents[1]


def test_the_table_of_tensors_is_up_to_date() -> None:
    page = (ROOT / "docs" / "life-of-a-request.md").read_text()
    assert insert(page) == page, "run `make generate`"


def test_the_tour_names_every_module() -> None:
    page = (ROOT / "docs" / "life-of-a-request.md").read_text()
    modules = [path.name for path in (ROOT / "runtime" / "consisid_runtime").glob("*.py") if path.name != "__init__.py"]
    assert [name for name in modules if f"`{name}`" not in page] == []
