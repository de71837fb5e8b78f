"""Wrong code makes tests fail: every mutation in `mutations.toml` is applied to a copy of the sources.

An entry has a name, a file, old text that occurs once in it, the new text, and tests of which at least one must fail.
"""

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOT_COPIED = ("__pycache__", ".git", ".venv", "build", "dist", ".*_cache")
PACKAGES = ("gateway", "runtime", "export", "kernels", "benchmarks", "nano", "nano/training")
PASSED, FAILED = 0, 1
"""Exit statuses of pytest. The others say that tests could not be run, which shows nothing."""


@dataclass(frozen=True, slots=True)
class Mutation:
    name: str
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def survives(self, tree: Path) -> bool:
        """Whether the tests pass with the mutation, which is undone afterwards, in a copy of the sources."""
        path = tree / self.file
        original = path.read_text()
        assert original.count(self.old) == 1, f"{self.file} has the old text {original.count(self.old)} times"
        path.write_text(original.replace(self.old, self.new))
        try:
            return passes(tree, self.tests)
        finally:
            path.write_text(original)


MUTATIONS = [
    Mutation(**entry | {"tests": tuple(entry["tests"])})
    for entry in tomllib.loads(Path(__file__).with_name("mutations.toml").read_text())["mutation"]
]
names = pytest.mark.parametrize("mutation", MUTATIONS, ids=[mutation.name for mutation in MUTATIONS])


def passes(tree: Path, tests: Iterable[str]) -> bool:
    """Whether pytest passes in a tree. Fails where the tests cannot be run."""
    paths = os.pathsep.join(str(tree / package) for package in PACKAGES)
    environment = os.environ | {"PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-P", "-m", "pytest", "-q", "-x", "-m", "not proof", "-p", "no:cacheprovider", *tests]
    done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (PASSED, FAILED), done.stdout + done.stderr
    return done.returncode == PASSED


@names
def test_every_mutation_changes_one_place_and_names_tests_that_exist(mutation: Mutation) -> None:
    assert (ROOT / mutation.file).read_text().count(mutation.old) == 1
    assert mutation.old != mutation.new and mutation.tests
    for test in mutation.tests:
        file, _, function = test.partition("::")
        assert not function or f"def {function.split('[')[0].split('::')[-1]}(" in (ROOT / file).read_text(), test


def test_names_are_unique() -> None:
    assert len({mutation.name for mutation in MUTATIONS}) == len(MUTATIONS)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """A tree with one function and its test."""
    (tmp_path / "pyproject.toml").write_text("[tool.pytest.ini_options]\nmarkers = ['proof']\n")
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime" / "double.py").write_text("def double(x):\n    return 2 * x\n")
    test = "from double import double\n\n\ndef test_double():\n    assert double(3) == 6\n"
    (tmp_path / "test_double.py").write_text(test)
    return tmp_path


@pytest.mark.parametrize(("new", "survives"), [("x + x", True), ("3 * x", False)])
def test_a_mutation_that_no_test_notices_survives(tiny: Path, new: str, survives: bool) -> None:
    mutation = Mutation("double", "runtime/double.py", "2 * x", new, ("test_double.py",))
    assert mutation.survives(tiny) is survives
    assert "2 * x" in (tiny / "runtime" / "double.py").read_text()


def test_tests_that_cannot_be_run_kill_nothing(tiny: Path) -> None:
    for old, tests in (("2 * x", "test_gone.py"), ("def double", "test_double.py"), ("3 * x", "test_double.py")):
        with pytest.raises(AssertionError):
            Mutation("double", "runtime/double.py", old, "(", (tests,)).survives(tiny)


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources, and the checkpoints and bundles of the tests, whose tests pass without a mutation."""
    tree = tmp_path_factory.mktemp("mutated") / "tree"
    shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(*NOT_COPIED), symlinks=True)
    if (ROOT / "build" / "test").is_dir():
        shutil.copytree(ROOT / "build" / "test", tree / "build" / "test", symlinks=True)
    assert passes(tree, sorted({test for mutation in MUTATIONS for test in mutation.tests}))
    return tree


@pytest.mark.proof
@names
def test_a_test_fails_for_every_mutation(
    mutation: Mutation, proof: Callable[..., Any], request: pytest.FixtureRequest
) -> None:
    files = {path for each in MUTATIONS for path in (each.file, *(test.partition("::")[0] for test in each.tests))}
    record = proof("mutations", *sorted(file for file in files if file.endswith(".py")))
    if mutation.name in record.trials:
        return
    assert not mutation.survives(request.getfixturevalue("copy")), "the tests pass with this mutation"
    record.record(mutation.name, file=mutation.file, killed=True)
