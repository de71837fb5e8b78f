from pathlib import Path

import pytest

from consisid_benchmarks.suites import export, kernels, pipeline
from consisid_fidelity.nano.record import ENTRY
from consisid_measurement import environment
from consisid_measurement.sources import Sources, source_files

SUITE = "suites/suite.py"
FILES = {
    SUITE: '''"""A suite."""
from typing import TYPE_CHECKING

import numpy
import consisid_lower.cli
from consisid_lower import direct

if TYPE_CHECKING:
    from consisid_lower.typed import T


def measure():
    """Measures."""
    from consisid_lower.deep.inner import value  # later

    return value
''',
    "low/consisid_lower/__init__.py": "",
    "low/consisid_lower/cli.py": "from consisid_lower import only_for_cli\n",
    "low/consisid_lower/only_for_cli.py": "",
    "low/consisid_lower/direct.py": 'TABLES = "tables"\n',
    "low/consisid_lower/tables/a.json": "1\n",
    "low/consisid_lower/deep/__init__.py": "",
    "low/consisid_lower/deep/inner.py": "import consisid_lower.progress\nvalue = 1\n",
    "low/consisid_lower/progress.py": "",
    "low/consisid_lower/typed.py": "T = int\n",
    "low/consisid_lower/unused.py": "",
    "low/elsewhere/direct.py": "",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    for name, content in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content)
    return tmp_path


def test_imports_are_followed_into_functions_and_to_data(root: Path) -> None:
    found = [path.relative_to(root).as_posix() for path in source_files(root, [SUITE])]
    inside = ("deep/inner.py", "direct.py", "tables/a.json")
    assert found == [*(f"low/consisid_lower/{name}" for name in inside), SUITE]


@pytest.mark.parametrize(
    "name", [SUITE, *(f"low/consisid_lower/{name}" for name in ("deep/inner.py", "tables/a.json"))]
)
def test_a_change_of_code_or_data_is_found(root: Path, name: str) -> None:
    sources = Sources.of(root, [SUITE])
    assert sources.current(root)
    (root / name).write_text(f"{FILES[name]}2\n")
    assert not sources.current(root)


@pytest.mark.parametrize("name", ["cli.py", "only_for_cli.py", "progress.py", "typed.py", "unused.py", "new.py"])
def test_files_that_figures_do_not_depend_on_may_change(root: Path, name: str) -> None:
    sources = Sources.of(root, [SUITE])
    (root / "low" / "consisid_lower" / name).write_text("2\n")
    assert sources.current(root)


def test_comments_and_docstrings_may_change_but_no_string_in_code(root: Path) -> None:
    sources = Sources.of(root, [SUITE])
    suite = root / SUITE
    suite.write_text(FILES[SUITE].replace("later", "now").replace("Measures.", "Measures\n\n    everything."))
    assert sources.current(root)
    direct = root / "low" / "consisid_lower" / "direct.py"
    direct.write_text('TABLES = "tables#1"\n')
    changed = Sources.of(root, [SUITE])
    assert changed != sources
    direct.write_text('TABLES = "tables#2"\n')
    assert not changed.current(root)


def test_a_suite_that_was_moved_is_not_current(root: Path) -> None:
    sources = Sources.of(root, [root / SUITE])
    assert sources.entry == (SUITE,)
    (root / SUITE).rename(root / "suites" / "moved.py")
    assert not sources.current(root)


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        (
            [pipeline.__file__],
            ("runtime/consisid_runtime/stages/denoise.py", "export/consisid_export/onnx/trace.py"),
            ("runtime/consisid_runtime/client/client.py", "nano/consisid_nano/world/__init__.py"),
        ),
        ([export.__file__], ("export/consisid_export/onnx/trace.py",), ("runtime/consisid_runtime/client/client.py",)),
        (
            [kernels.__file__],
            ("kernels/consisid_kernels/tiles/linear.json", "kernels/consisid_kernels/reference/__init__.py"),
            ("runtime/consisid_runtime/models/dit.py",),
        ),
        (
            ENTRY,
            ("benchmarks/consisid_fidelity/verdict.py", "nano/consisid_nano/judges/arcface.onnx"),
            ("benchmarks/consisid_fidelity/nano/plots.py", "benchmarks/consisid_fidelity/score.py"),
        ),
    ],
    ids=["pipeline", "export", "kernels", "fidelity"],
)
def test_the_suites_depend_on_what_they_measure(entry: list[str], inside: tuple[str], outside: tuple[str]) -> None:
    root = environment.checkout()
    found = {path.relative_to(root).as_posix() for path in source_files(root, entry)}
    assert found >= set(inside)
    assert all((root / name).is_file() for name in outside) and found.isdisjoint(outside)
    assert not [name for name in found if Path(name).name in ("cli.py", "report.py", "plots.py", "record.py")]
