"""Runs one command and ends it, with everything that it started, when this process's standard input closes.

The input is a pipe from whoever wants the command running: it closes when they close it and also when they die, however
they die. A plain script, started by path with `python -I -S`, so that it costs 20 ms and imports nothing of ours.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import threading
from pathlib import Path


def _until_closed(child: subprocess.Popen[bytes], grace: float) -> None:
    if os.read(0, 1):
        child.kill()
        return
    child.terminate()
    try:
        child.wait(grace)
    except subprocess.TimeoutExpired:
        child.kill()


def main(folder: str, shared_memory: str, grace: str, *command: str) -> int:
    """Run `command`; afterwards end its process group, remove `folder` and the shared memory of that name prefix.

    Args:
        grace: seconds between asking the command to end and killing it; a byte on standard input kills it at once.
    """
    # Whoever stops a whole group or unit signals the command too; this process has to outlive it to clean up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    child = subprocess.Popen(command, stdin=subprocess.DEVNULL, start_new_session=True, restore_signals=True)
    threading.Thread(target=_until_closed, args=(child, float(grace)), daemon=True).start()
    code = child.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    for region in Path("/dev/shm").glob(f"{shared_memory}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
