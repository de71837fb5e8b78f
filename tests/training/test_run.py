"""Every stage is asked with options that it has."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from consisid_training import run


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["stages", "further_stages"])
def test_stages_know_what_they_are_asked(kind: str, processes: int) -> None:
    more = () if kind == "stages" else (Path("checkpoint"),)
    for command in getattr(run, kind)(Path("folder"), processes, *more):
        module = next(part for part in command if part.startswith("consisid_training."))
        spec = find_spec(module)
        assert spec is not None and spec.origin is not None, module
        known = set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', Path(spec.origin).read_text()))
        asked = {part for part in command[command.index(module) :] if part.startswith("--")}
        assert asked <= known, (module, asked - known)
