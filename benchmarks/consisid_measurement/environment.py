"""Describes where a record is made: machine, versions, commit, time, ceilings."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import median

from consisid_measurement.record import Machine
from consisid_runtime.cpus import usable_cpus
from consisid_runtime.errors import InvalidOption, MissingExtra

# Written after a measurement, from its result.
_NOT_CODE = (":!benchmarks/results", ":!README.md", ":!docs")


def checkout() -> Path:
    """The repository's root. Raises `MissingExtra` outside of a checkout: the gates are tests of the repository."""
    root = Path(__file__).parents[2]
    if not (root / "pyproject.toml").is_file() or not (root / "tests").is_dir():
        raise MissingExtra(
            "benchmarks run a test before they measure and need a checkout of the repository: `make install`"
        )
    return root


def cores() -> int:
    """CPUs that this process may use, a cgroup's quota included."""
    return usable_cpus()


def machine(name: str | None = None) -> Machine:
    """This machine. Without `name` it is called after its GPU or its number of cores, never by its host name.

    Raises `InvalidOption` for a name that cannot be a folder.
    """
    gpu = _gpu()
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        return Machine(name or neutral_name(gpu, cores()), _cpu(), cores(), round(memory / 2**30), gpu)
    except ValueError as error:
        raise InvalidOption(str(error)) from error


def neutral_name(gpu: str | None, count: int) -> str:
    """ "NVIDIA H200" → "h200"; without a GPU "cpu-2core"."""
    if gpu is None:
        return f"cpu-{count}core"
    return re.sub(r"[^a-z0-9]+", "-", gpu.lower().removeprefix("nvidia ")).strip("-")


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of Python, of NVIDIA's driver where there is one, and of those of `packages` that are installed."""
    found = {"python": platform.python_version()} | _driver()
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def commit(root: Path) -> str:
    """The commit checked out at `root`, "-dirty" appended when code differs from it.

    Outside a repository what `CONSISID_COMMIT` says, for a copy of the files on another machine, else "unknown".
    """
    head = _git(root, "rev-parse", "--short=12", "--verify", "HEAD")
    if not head:
        return os.environ.get("CONSISID_COMMIT") or "unknown"
    return f"{head}-dirty" if _git(root, "status", "--porcelain", "--", ".", *_NOT_CODE) else head


def now() -> str:
    """UTC, ISO 8601, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def cpu_ceilings(threads: int) -> dict[str, float | None]:
    """PyTorch's speed on this CPU: fp32 product of 2048² matrices; bytes read and written in a copy of 256 MiB."""
    import torch

    torch.set_num_threads(threads)
    left, right, out = (torch.ones(2048, 2048) for _ in range(3))
    source, target = (torch.ones(64 * 2**20) for _ in range(2))
    product = _median_seconds(lambda: torch.mm(left, right, out=out))
    copy = _median_seconds(lambda: target.copy_(source))
    return {
        "matmul_bf16_tflops": None,
        "matmul_fp32_tflops": round(2 * 2048**3 / product / 1e12, 4),
        "copy_gbps": round(2 * source.nbytes / copy / 1e9, 2),
    }


def _median_seconds(work: Callable[[], object]) -> float:
    work()
    seconds = []
    for _ in range(5):
        begin = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - begin)
    return median(seconds)


def _gpu() -> str | None:
    try:
        import torch
    except ImportError:
        return None
    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _driver() -> dict[str, str]:
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {"nvidia-driver": done.stdout.split()[0]} if done.stdout.split() else {}


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1].strip() if found else platform.machine()


def _git(root: Path, *arguments: str) -> str:
    try:
        done = subprocess.run(["git", "-C", str(root), *arguments], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""
