"""Every command of `run` is an executable module and passes only options that the module has."""

import re
from importlib.util import find_spec
from pathlib import Path

import pytest

from consisid_runtime.errors import OutputUnwritable
from consisid_training import run


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["commands", "further_commands"])
def test_commands_match_their_modules(kind: str, processes: int) -> None:
    more = () if kind == "commands" else (Path("checkpoint"),)
    for command in getattr(run, kind)(Path("folder"), processes, *more):
        module = next(part for part in command if part.startswith("consisid_training."))
        spec = find_spec(module)
        assert spec is not None and spec.origin is not None, module
        text = Path(spec.origin).read_text()
        assert 'if __name__ == "__main__":' in text, module
        known = set(re.findall(r'add_argument\(\s*"(--[a-z-]+)"', text))
        asked = {part for part in command[command.index(module) :] if part.startswith("--")}
        assert asked <= known, (module, asked - known)


def test_only_folders_of_an_earlier_run_are_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(arguments: list[str]) -> None:
        if arguments[0] in ("consisid_training.checkpoint", "consisid_training.judges.write"):
            Path(arguments[-1]).mkdir()
            Path(arguments[-1], "weights").write_text("ours")

    monkeypatch.setattr(run, "_run", write)
    for _ in range(2):
        run.run(tmp_path, 1)
        assert (tmp_path / "checkpoint" / "weights").read_text() == "ours"
    (tmp_path / "checkpoint" / "weights").write_text("mine")
    with pytest.raises(OutputUnwritable, match="checkpoint differs"):
        run.run(tmp_path, 1)
    assert (tmp_path / "checkpoint" / "weights").read_text() == "mine"
