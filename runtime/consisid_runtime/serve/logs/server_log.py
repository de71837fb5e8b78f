"""The log of a Triton server: passed on, and its end kept for error messages."""

from __future__ import annotations

import contextlib
import os
import threading
from collections import deque
from pathlib import Path
from typing import IO, Any, Protocol

from consisid_runtime.errors import ConsisIDError, ServerError, from_wire

# For each connection to a private server's metrics, which are on a Unix socket.
_HARMLESS = b"NODELAY NOT SUPPORTED"
_TAIL_LINES, _TAIL_WIDTH = 20, 300
_LINES_KEPT = 1000
_LATE = 5.0
"""Seconds for what a server that has ended had written."""


class Writable(Protocol):
    """An open binary stream, as far as it is used."""

    def write(self, data: bytes, /) -> Any: ...

    def flush(self) -> Any: ...


class ServerLog:
    """Of one server after another.

    Args:
        out: a file that is appended to, or an open stream; None keeps the end alone. A new file is readable for its
            owner alone.
    """

    def __init__(self, out: Path | Writable | None) -> None:
        self._out = out.resolve() if isinstance(out, Path) else out
        self._recent: deque[bytes] = deque(maxlen=_LINES_KEPT)
        self._reader: threading.Thread | None = None

    def follow(self, source: IO[bytes]) -> None:
        """Read `source` in a thread from now on, and close it at its end. What was kept before is forgotten."""
        self._recent.clear()
        self._reader = threading.Thread(target=self._read, args=(source,), daemon=True)
        self._reader.start()

    def finish(self) -> None:
        """Wait for the rest of a server that has ended."""
        if self._reader is not None:
            self._reader.join(_LATE)

    def tail(self) -> str:
        """The last lines, cut to a width."""
        return "\n".join(line[:_TAIL_WIDTH] for line in self.lines()[-_TAIL_LINES:])

    def failure(self) -> ConsisIDError:
        """Why the server did not start: the typed error of a model, else the end of the log."""
        for line in self.lines():
            # The server escapes the newlines of a model's message and adds where it was raised.
            error = from_wire(line.split("\\n")[0])
            if type(error) is not ServerError:
                return error
        return ServerError(f"Triton server did not start; the end of its log:\n{self.tail()}")

    def lines(self) -> list[str]:
        """The last thousand."""
        return [line.decode(errors="replace").rstrip("\n") for line in list(self._recent)]

    def _read(self, source: IO[bytes]) -> None:
        """Errors of the destination are ignored: the server must not block."""
        with contextlib.ExitStack() as stack:
            out = self._out
            if isinstance(out, Path):
                out = stack.enter_context(open(out, "ab", opener=_private))
            for line in stack.enter_context(source):
                if _HARMLESS in line:
                    continue
                self._recent.append(line)
                if out is not None:
                    with contextlib.suppress(OSError, ValueError):
                        out.write(line)
                        out.flush()


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)
