import platform
import subprocess
from pathlib import Path

import pytest

from consisid_measurement import environment
from consisid_runtime.errors import InvalidOption


@pytest.mark.parametrize(
    ("gpu", "cores", "name"),
    [(None, 2, "cpu-2core"), ("NVIDIA H200", 16, "h200"), ("NVIDIA H100 80GB HBM3", 8, "h100-80gb-hbm3")],
)
def test_a_machine_is_named_after_what_it_has(gpu: str | None, cores: int, name: str) -> None:
    assert environment.neutral_name(gpu, cores) == name


def test_this_machine_is_described_without_its_host_name() -> None:
    here = environment.machine()
    assert here.cores >= 1
    assert here.memory_gib >= 1
    assert platform.node() not in (here.name, here.cpu)
    assert environment.machine("workstation").name == "workstation"


def test_a_name_that_is_no_folder_is_refused() -> None:
    with pytest.raises(InvalidOption, match=r"\.\./up"):
        environment.machine("../up")


def test_the_root_is_found() -> None:
    assert (environment.checkout() / "benchmarks" / "consisid_benchmarks").is_dir()


def test_a_commit_is_dirty_when_code_changed_but_not_when_results_did(tmp_path: Path) -> None:
    def git(*arguments: str) -> str:
        identity = ("-c", "user.name=nobody", "-c", "user.email=nobody@example.org", "-c", "core.hooksPath=/dev/null")
        done = subprocess.run(
            ["git", "-C", tmp_path, *identity, *arguments], capture_output=True, check=True, text=True
        )
        return done.stdout.strip()

    assert environment.commit(tmp_path) == "unknown"
    git("init", "--quiet")
    assert environment.commit(tmp_path) == "unknown"
    (tmp_path / "code.py").write_text("1\n")
    git("add", ".")
    git("commit", "--quiet", "--message", "first")
    head = git("rev-parse", "--short=12", "HEAD")
    assert environment.commit(tmp_path) == head
    (tmp_path / "benchmarks" / "results").mkdir(parents=True)
    (tmp_path / "benchmarks" / "results" / "new.json").write_text("{}")
    (tmp_path / "README.md").write_text("tables")
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "benchmarks.md").write_text("tables")
    assert environment.commit(tmp_path) == head
    (tmp_path / "code.py").write_text("2\n")
    assert environment.commit(tmp_path) == f"{head}-dirty"


def test_a_copy_without_a_repository_is_told_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CONSISID_COMMIT", "0123456789ab")
    assert environment.commit(tmp_path) == "0123456789ab"
    assert environment.commit(environment.checkout()) != "0123456789ab"


def test_the_driver_is_among_the_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 580.159.04\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert environment.versions(["no-such-package"]) == {
        "python": platform.python_version(),
        "nvidia-driver": "580.159.04",
    }
    program.unlink()
    assert "nvidia-driver" not in environment.versions([])
