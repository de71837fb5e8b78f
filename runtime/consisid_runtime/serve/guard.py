"""Runs one command and ends it, with everything that it started, when this process's standard input closes.

Standard input is a pipe from the launching process: it closes when the launcher closes it or ends, also by SIGKILL.
This is a plain script, started by path with `python -I -S`: it starts in 40 ms and imports only its neighbour.
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
import time
from functools import partial
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parent))
    from confined import confine, may_filter  # type: ignore[import-not-found]
else:
    from consisid_runtime.serve.confined import confine, may_filter

READY, KILL = b"r", b"k"
"""Orders on standard input: watch the command's own children from now on; end the command at once."""

WATCHING = "watching"
"""The file in the launcher's folder that appears once the command's children are watched."""

SIGNALLED = 128
"""Exit status above which the rest is the number of the signal that ended the command, as shells have it."""

_MEMORY, _TEMPORARY = Path("/dev/shm"), Path("/tmp")
_LINK = "python_env"
_EVERY = 0.2
_STILL = 3.0
"""Seconds for which a model's process may be stopped: a request that it works on would wait for ever."""


def clean(folder: str, shared_memory: str) -> None:
    """Remove a server's folder, that of its Python backend, and its shared memory of that name prefix, if there."""
    with contextlib.suppress(OSError):  # the server removed it; or it is not empty, and hence not the server's
        (Path(folder) / _LINK).readlink().rmdir()
    for region in _MEMORY.glob(f"{shared_memory}*"):
        region.unlink(missing_ok=True)
    shutil.rmtree(folder, ignore_errors=True)


def end_stragglers(shared_memory: str) -> None:
    """Kill what is left of a server whose guard was killed, by the name prefix of its regions in its command lines.

    The process of a model whose server died in the middle of a request may wait for it for ever.
    """
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (path / "cmdline").read_bytes().split(b"\0")
            if any(word.startswith(shared_memory.encode()) for word in words):
                os.kill(int(path.name), signal.SIGKILL)


def ended(status: int) -> str:
    """How the server ended, in words, from the exit status of its guard."""
    number = status - SIGNALLED
    if status < 0:
        return f"the process that guards Triton server was ended by {_signal(-status)}, and the server with it"
    if number > 0:
        hint = "; the kernel does this when memory runs out" if number == signal.SIGKILL else ""
        return f"Triton server was ended by {_signal(number)}{hint}"
    return f"Triton server ended with exit status {status}"


def _signal(number: int) -> str:
    try:
        return f"signal {number} ({signal.Signals(number).name})"
    except ValueError:
        return f"signal {number}"


class Guard:
    """One command, and what it leaves behind.

    Args:
        command: Triton server with its arguments.
        folder: the launcher's, for this server.
        shared_memory: the name prefix of its regions under /dev/shm.
        grace: seconds between asking the command to end and killing it.
    """

    def __init__(self, command: tuple[str, ...], folder: Path, shared_memory: str, grace: float) -> None:
        self._folder, self._shared_memory, self._grace = folder, shared_memory, grace
        self._lost_model = False
        self._models: set[int] = set()
        self._stopped: dict[int, float] = {}
        self._backend_folder = _BackendFolder(folder / _LINK)
        self._child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            restore_signals=True,
            preexec_fn=partial(confine, os.getpid(), filtered=may_filter()),
        )

    def run(self) -> int:
        """Wait for the command. Returns its exit status, `SIGNALLED` + number for a signal, 1 where a model ended."""
        threading.Thread(target=self._watch, daemon=True).start()
        code = self._child.wait()
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._child.pid, signal.SIGKILL)
        self._wait_for_models()
        self._backend_folder.look(None)
        if self._lost_model:
            return 1
        return code if code >= 0 else SIGNALLED - code

    def _watch(self) -> None:
        while all(_parent(pid) == self._child.pid for pid in self._models) and not self._stands_still():
            ordered = select.select([0], [], [], _EVERY)[0]
            if not self._models:
                self._backend_folder.look(self._child.pid)
                self._hide_memory()
            if not ordered:
                continue
            order = os.read(0, 1)
            if order == READY:
                self._models = _children(self._child.pid)
                (self._folder / WATCHING).touch()
                continue
            if order == KILL:
                self._child.kill()
                return
            self._stop()
            return
        # A server that lost a model's process keeps reporting that it is ready, and fails every request.
        if self._child.poll() is None:
            self._lost_model = True
            with contextlib.suppress(OSError):
                what = "stands still" if self._stopped else "ended, killed or crashed"
                print(f"the process of a model {what}: the server is ended", file=sys.stderr, flush=True)
            self._child.kill()

    def _stands_still(self) -> bool:
        now = time.monotonic()
        stopped = [pid for pid in self._models if (found := _state(pid)) is not None and found[0] == "T"]
        self._stopped = {pid: self._stopped.get(pid, now) for pid in stopped}
        return any(now - since > _STILL for since in self._stopped.values())

    def _stop(self) -> None:
        """Ask the command to end, and kill it when the grace is over, or when it has nothing left to do.

        The server ends its models' processes when their requests are answered, and needs two more seconds itself.
        """
        self._child.terminate()
        deadline = time.monotonic() + self._grace
        while self._child.poll() is None and time.monotonic() < deadline:
            if self._models and self._backend_folder.known and not self._alive():
                break
            time.sleep(0.02)
        self._child.kill()

    def _wait_for_models(self) -> None:
        """A killed process ends when its memory has been given back, of the GPU too: who comes next may need it."""
        deadline = time.monotonic() + self._grace
        while self._alive() and time.monotonic() < deadline:
            time.sleep(0.02)

    def _alive(self) -> bool:
        """Whether a model's process is there."""
        return any(_parent(pid) is not None for pid in self._models)

    def _hide_memory(self) -> None:
        """Where the filter is missing: before the server answers, since that is after the last model was loaded."""
        for region in _MEMORY.glob(f"{self._shared_memory}*"):
            with contextlib.suppress(OSError):
                region.chmod(0o600)


class _BackendFolder:
    """The empty folder /tmp/python_env_… that the Python backend makes, and leaves behind when it is killed.

    Its name is random. It is the server's own where it is the only one that this user got between the server's start
    and that of its first model; where there are several, none is removed.
    """

    def __init__(self, link: Path) -> None:
        self._link = link
        self._before = self._all()
        self._searching = True

    def look(self, server: int | None) -> None:
        """Once the server has a model's process, or None for one that has ended: link to the folder, for `clean`."""
        if self._searching and (server is None or _children(server)):
            self._searching = False
            if len(found := self._all() - self._before) == 1:
                self._link.symlink_to(found.pop())

    @property
    def known(self) -> bool:
        return self._link.is_symlink()

    @staticmethod
    def _all() -> set[Path]:
        found = set()
        for path in _TEMPORARY.glob("python_env_*"):
            with contextlib.suppress(OSError):
                if path.lstat().st_uid == os.getuid():
                    found.add(path)
        return found


def _children(pid: int) -> set[int]:
    return {int(path.name) for path in Path("/proc").glob("[0-9]*") if _parent(path.name) == pid}


def descendants(pid: int) -> list[int]:
    """The children of a process, and theirs, at this moment."""
    parents = {int(path.name): _parent(path.name) for path in Path("/proc").glob("[0-9]*")}
    found = [pid]
    for each in found:
        found += [child for child, parent in parents.items() if parent == each]
    return found[1:]


def _parent(pid: int | str) -> int | None:
    """The parent of a process; None when it has ended."""
    found = _state(pid)
    return None if found is None or found[0] in "ZX" else found[1]


def _state(pid: int | str) -> tuple[str, int] | None:
    """The letter of a process's state in /proc, and its parent; None where there is no such process."""
    try:
        state, parent = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[:2]
    except OSError:
        return None
    return state, int(parent)


def main(folder: str, shared_memory: str, grace: str, *command: str) -> int:
    """Run `command`; afterwards end its process group, and remove what it leaves behind: see `clean`.

    Args:
        grace: seconds between asking the command to end, when standard input closes, and killing it.

    After `READY` the command is also killed when one of the children that it has then ends before it. Returns what
    `Guard.run` does.
    """
    # A signal to the whole process group reaches the command too; this process has to outlive it to clean up.
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    code = Guard(command, Path(folder), shared_memory, float(grace)).run()
    clean(folder, shared_memory)
    return code


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
