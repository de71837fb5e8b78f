"""What the guard ends and removes, with other commands than Triton server."""

import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from consisid_runtime.serve import guard

GRACE = "0.2"
STARTS_ANOTHER = "import subprocess, sys; print(subprocess.Popen(['sleep', '300']).pid, flush=True); {then}"


def start(folder: Path, prefix: str, then: str) -> tuple[subprocess.Popen[str], int]:
    """A guard over a command that has started another process, and that process's number."""
    folder.mkdir()
    command = [sys.executable, "-c", STARTS_ANOTHER.format(then=then)]
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", guard.__file__, str(folder), prefix, GRACE, *command],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    return process, int(process.stdout.readline())


def runs(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def check_nothing_is_left(process: subprocess.Popen[str], pid: int, folder: Path, region: Path) -> None:
    with process:
        try:
            process.wait(10)
            deadline = time.monotonic() + 5
            while runs(pid) and time.monotonic() < deadline:
                time.sleep(0.01)
            assert not runs(pid)
            assert not folder.exists() and not region.exists()
        finally:
            process.kill()
            if runs(pid):
                os.kill(pid, signal.SIGKILL)
            region.unlink(missing_ok=True)


def test_what_the_command_started_ends_with_it(tmp_path: Path) -> None:
    prefix = f"consisid-test-{secrets.token_hex(4)}-"
    region = Path("/dev/shm") / f"{prefix}region"
    region.touch()
    process, pid = start(tmp_path / "folder", prefix, "sys.exit(7)")
    check_nothing_is_left(process, pid, tmp_path / "folder", region)
    assert process.returncode == 7


@pytest.mark.parametrize(("looks", "seconds"), [(5, 0.1), (1000, 0.3)], ids=["a moment", "for ever"])
def test_it_ends_once_the_models_have_given_back_their_memory(
    monkeypatch: pytest.MonkeyPatch, looks: int, seconds: float
) -> None:
    left, slept = iter(range(looks)), [0.0]
    monkeypatch.setattr(guard, "_parent", lambda pid: next(left, None))
    monkeypatch.setattr(guard, "time", SimpleNamespace(monotonic=lambda: sum(slept), sleep=slept.append))
    ended = object.__new__(guard.Guard)
    ended._models, ended._grace = {4242}, 0.3
    ended._wait_for_models()
    assert sum(slept) == pytest.approx(seconds, abs=0.03)


def test_the_command_ends_when_the_input_closes(tmp_path: Path) -> None:
    prefix = f"consisid-test-{secrets.token_hex(4)}-"
    process, pid = start(tmp_path / "folder", prefix, "import time; time.sleep(300)")
    assert process.stdin is not None
    process.stdin.close()
    check_nothing_is_left(process, pid, tmp_path / "folder", Path("/dev/shm") / f"{prefix}region")
