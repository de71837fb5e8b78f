"""How many CPUs a process may use, from made-up cgroups of both versions, and who obeys."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from consisid_runtime import cpus
from consisid_runtime.errors import InvalidOption


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Eight CPUs, no cgroup, no variable; returns the folder of cgroups."""
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(8)))
    monkeypatch.setattr(cpus, "_CGROUPS", tmp_path / "cgroup")
    monkeypatch.setattr(cpus, "_OWN_CGROUP", tmp_path / "own")
    return tmp_path / "cgroup"


def write(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


def own(machine: Path, line: str) -> None:
    write(machine.with_name("own"), line + "\n")


def test_affinity_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    assert cpus.usable_cpus() == 8
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3})
    assert cpus.usable_cpus() == 1


@pytest.mark.parametrize(
    ("quota", "count"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("1000 100000", 1),
        ("max 100000", 8),
        ("6400000 100000", 8),
        ("0 100000", 8),
        ("100000 0", 8),
        ("", 8),
        ("nonsense", 8),
    ],
)
def test_a_quota_of_version_2(machine: Path, quota: str, count: int) -> None:
    own(machine, "0::/")
    write(machine / "cpu.max", quota)
    assert cpus.usable_cpus() == count


@pytest.mark.parametrize(("quota", "count"), [("300000", 3), ("-1", 8), ("50000", 1)])
@pytest.mark.parametrize("mount", ["cpu", "cpu,cpuacct"])
def test_a_quota_of_version_1(machine: Path, mount: str, quota: str, count: int) -> None:
    own(machine, "4:cpu,cpuacct:/docker/abc\n5:memory:/docker/abc")
    write(machine / mount / "cpu.cfs_quota_us", quota)
    write(machine / mount / "cpu.cfs_period_us", "100000")
    assert cpus.usable_cpus() == count


@pytest.mark.parametrize("level", ["system.slice/consisid.service", "system.slice", "."])
def test_the_quota_of_a_slice_above_counts(machine: Path, level: str) -> None:
    own(machine, "0::/system.slice/consisid.service")
    write(machine / level / "cpu.max", "300000 100000")
    write(machine / "other.slice" / "cpu.max", "100000 100000")
    assert cpus.usable_cpus() == 3


def test_the_smallest_quota_wins(machine: Path) -> None:
    own(machine, "0::/a/b")
    for level, cpu in (("a/b", 5), ("a", 2), (".", 4)):
        write(machine / level / "cpu.max", f"{cpu}00000 100000")
    assert cpus.usable_cpus() == 2


def test_a_path_above_the_mounted_cgroup_is_ignored(machine: Path) -> None:
    own(machine, "0::/../../elsewhere")
    write(machine.parent / "elsewhere" / "cpu.max", "100000 100000")
    assert cpus.usable_cpus() == 8


@pytest.mark.parametrize(
    ("value", "count"),
    [("3", 3), (" 3 ", 3), ("3,2", 3), ("99", 99), ("0", 8), ("-1", 8), ("", 8), ("x", 8), ("³", 8), ("9" * 5000, 8)],
)
def test_the_variable_decides(monkeypatch: pytest.MonkeyPatch, value: str, count: int) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", value)
    assert cpus.default_threads() == count


@pytest.mark.parametrize("count", [0, -1, 1025, 10**30, True, 2.0, "2", 10**5000], ids=type)
def test_a_number_that_is_not_possible(count: object) -> None:
    with pytest.raises(InvalidOption, match="from 1 to 1024"):
        cpus.check_threads(count)  # type: ignore[arg-type]


COUNTED = """
import sys
sys.argv = ["consisid", "work", *sys.argv[1:]]
from types import SimpleNamespace
from consisid_runtime.cli import main
from consisid_runtime.cli.threads import Threads
from consisid_runtime.engines.onnxruntime import OnnxEngine
def work(threads: Threads = None) -> None:
    import cv2, torch
    from consisid_runtime.cpus import default_threads
    print(torch.get_num_threads(), default_threads(), cv2.getNumThreads())
main.entry_points = lambda group: [SimpleNamespace(load=lambda: lambda app: app.command("work")(work))]
main.main()
"""


def test_the_flag_reaches_every_library() -> None:
    done = subprocess.run(
        [sys.executable, "-c", COUNTED, "--threads", "3"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "3 3 3"


@pytest.mark.parametrize("count", ["0", "-3", "1000000"])
def test_the_flag_refuses_what_is_not_possible(count: str) -> None:
    code = "from consisid_runtime.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", "--bundle", "nowhere", "--threads", count]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode, done.stderr[:14]) == (3, "INVALID_OPTION")


def test_torch_is_lowered_to_a_quota(monkeypatch: pytest.MonkeyPatch, machine: Path) -> None:
    import torch

    own(machine, "0::/")
    write(machine / "cpu.max", "200000 100000")
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        monkeypatch.setenv("OMP_NUM_THREADS", "5")
        cpus.limit_torch()
        assert torch.get_num_threads() == 5, "the variable chose"
        monkeypatch.delenv("OMP_NUM_THREADS")
        cpus.limit_torch()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
