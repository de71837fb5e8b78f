"""Runs one command and ends it, with everything that it started, when this process's standard input closes.

Standard input is a pipe from the launching process: it closes when the launcher closes it or ends, also by SIGKILL.
This is a plain script, started by path with `python -I -S`: it starts in 20 ms and imports nothing of this project.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path

READY, KILL = b"r", b"k"
"""Orders on standard input: watch the command's own children from now on; end the command at once."""

_EVERY = 0.2


def _watch(child: subprocess.Popen[bytes], grace: float) -> None:
    models: set[int] = set()
    while all(_parent(pid) == child.pid for pid in models):
        if not select.select([0], [], [], _EVERY)[0]:
            continue
        order = os.read(0, 1)
        if order == READY:
            models = {int(path.name) for path in Path("/proc").glob("[0-9]*") if _parent(path.name) == child.pid}
            continue
        if order == KILL:
            child.kill()
            return
        child.terminate()
        try:
            child.wait(grace)
        except subprocess.TimeoutExpired:
            child.kill()
        return
    # A server that lost a model's process keeps reporting that it is ready, and fails every request.
    if child.poll() is None:
        with contextlib.suppress(OSError):
            print("the process of a model ended, killed or crashed: the server is ended", file=sys.stderr, flush=True)
        child.kill()


def _parent(pid: int | str) -> int | None:
    """The parent of a process; None when it has ended."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return None if state in "ZX" else int(parent)


def main(folder: str, shared_memory: str, grace: str, *command: str) -> int:
    """Run `command`; afterwards end its process group, remove `folder` and the shared memory of that name prefix.

    Args:
        grace: seconds between asking the command to end, when standard input closes, and killing it.

    After `READY` the command is also killed when one of the children that it has then ends before it.
    """
    # A signal to the whole process group reaches the command too; this process has to outlive it to clean up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, restore_signals=True)
    threading.Thread(target=_watch, args=(child, float(grace)), daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for region in Path("/dev/shm").glob(f"{shared_memory}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
