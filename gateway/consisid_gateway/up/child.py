"""One process of `consisid up`: started, listened to, ended."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, Any

_MAIN = "from consisid_runtime.cli.main import main; main()"
_CONFINED = (
    "import sys; from consisid_runtime.serve.confined import confine; confine(int(sys.argv.pop(1)), filtered=False)"
)
"""After `exec`: between `fork` and `exec` nothing may run in a process with threads, or with gRPC's fork handlers."""
_LONGEST_LINE = 2**16
_READ = 2**16


@dataclass(frozen=True, slots=True)
class Part:
    """What a child is.

    Attributes:
        name: before each line of its log.
        arguments: of `consisid`; with `--json` it prints one object when it is ready, or why it cannot be.
        environment: all of it.
        grace: seconds between asking it to end and killing it.
    """

    name: str
    arguments: tuple[str, ...]
    environment: Mapping[str, str]
    grace: float


class Child:
    """A part's process. It ends with this process, however this one ends, and no signal of a terminal reaches it.

    Args:
        log: takes each line that it writes to standard error.
    """

    def __init__(self, part: Part, log: Callable[[str], None]) -> None:
        self.part, self._log = part, log
        self._process: subprocess.Popen[bytes] | None = None
        self._rest: dict[int, bytes] = {}
        self.told: dict[str, Any] | None = None
        self._to_reload = False

    def start(self) -> None:
        """Raises `OSError`. The thread that calls it must live as long as this process: the child ends with it."""
        self.told, self._to_reload = None, False
        self._close()
        self._process = subprocess.Popen(
            (sys.executable, "-P", "-c", f"{_CONFINED}; {_MAIN}", str(os.getpid()), *self.part.arguments, "--json"),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=dict(self.part.environment),
            start_new_session=True,
        )
        for pipe in self.pipes():
            os.set_blocking(pipe.fileno(), False)
        self._rest = {pipe.fileno(): b"" for pipe in self.pipes()}

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def status(self) -> int | None:
        """Of one that has ended; below 0 the number of a signal."""
        return None if self._process is None else self._process.poll()

    def pipes(self) -> list[IO[bytes]]:
        """What it writes to, as far as it is open."""
        process = self._process
        found = [] if process is None else [process.stdout, process.stderr]
        return [pipe for pipe in found if pipe is not None and not pipe.closed]

    def read(self) -> None:
        """Take what it has written; returns when there is no more now."""
        for pipe in self.pipes():
            while True:
                try:
                    content = os.read(pipe.fileno(), _READ)
                except BlockingIOError:
                    break
                if not content:
                    self._take(pipe, b"\n" if self._rest[pipe.fileno()] else b"")
                    pipe.close()
                    break
                self._take(pipe, content)

    def ask_to_end(self) -> None:
        self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """At once. What it started itself has a guard, or ends with it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._close()

    def reload(self) -> None:
        """Send SIGHUP: to one that is not ready once it is, since before it may end by it. For signal handlers."""
        if self.told is None:
            self._to_reload = True
        else:
            self._signal(signal.SIGHUP)

    def _close(self) -> None:
        """What an ended one started, and has not ended yet, may hold the pipes open."""
        self.read()
        for pipe in self.pipes():
            pipe.close()

    def _signal(self, number: signal.Signals) -> None:
        if self._process is not None:
            self._process.send_signal(number)

    def _take(self, pipe: IO[bytes], content: bytes) -> None:
        number, process = pipe.fileno(), self._process
        *lines, rest = (self._rest[number] + content).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            lines, rest = [*lines, rest], b""
        self._rest[number] = rest
        assert process is not None
        for line in lines:
            if pipe is process.stdout and self.told is None and (found := _object(line)) is not None:
                self.told = found
                if self._to_reload:
                    self._to_reload = False
                    self.reload()
            else:
                self._log(line.decode(errors="replace").rstrip("\r"))


def _object(line: bytes) -> dict[str, Any] | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None
