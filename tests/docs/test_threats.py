"""Every threat of docs/threats.toml has tests that exist, or says that nothing stands against it."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

from generators import threats

ROWS = {row["name"]: row for row in threats.threats()}


@pytest.mark.parametrize("name", ROWS)
def test_a_threat_is_proven_or_named_as_not_protected(name: str, root: Path) -> None:
    row = ROWS[name]
    assert row.keys() in ({"name", "who", "against", "tests"}, {"name", "who", "instead"})
    tests = row.get("tests", [])
    assert ("tests" not in row or tests) and len(set(tests)) == len(tests)
    assert [test for test in tests if not exists(root, test)] == []


def test_names_and_people_are_known() -> None:
    assert len(ROWS) == len(threats.threats())
    people = set(re.findall(r"\*\*(\w+)\*\*", threats.who_table()))
    assert {row["who"] for row in ROWS.values()} == people


def test_what_does_not_exist_is_found(root: Path) -> None:
    here = Path(__file__).relative_to(root).as_posix()
    assert exists(root, f"{here}::test_names_and_people_are_known")
    for test in (f"{here}::test_names", f"{here}::exists", f"{here}", "tests/docs/test_none.py::test_x"):
        assert not exists(root, test)


def exists(root: Path, test: str) -> bool:
    """Whether a file of tests has this test, always skipped ones left out."""
    path, _, name = test.partition("::")
    if not (root / path).is_file():
        return False
    functions = [node for node in ast.parse((root / path).read_text()).body if isinstance(node, ast.FunctionDef)]
    found = [node for node in functions if node.name == name and name.startswith("test_")]
    return bool(found) and not any("skip(" in ast.unparse(mark) for node in found for mark in node.decorator_list)
