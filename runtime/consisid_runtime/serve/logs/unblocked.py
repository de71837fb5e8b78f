"""A log that never waits for who reads it."""

from __future__ import annotations

import io
import queue
import threading
from types import TracebackType
from typing import IO, Any, Self

_MOST = 4096
"""Writes that wait; a line of the log is one."""
_LATE = 1.0
"""Seconds at the end for what waits."""


class Unblocked(io.RawIOBase):
    """Passes on what is written, in a thread; a context manager.

    Who reads standard error may stand still: a terminal after Ctrl-S, a pipe to a stopped process. What is written then
    waits; where too much does, it is dropped, and a line in its place says how much. A stream that cannot be written
    loses what was meant for it.
    """

    def __init__(self, stream: IO[bytes]) -> None:
        self._stream = stream
        self._waiting: queue.Queue[bytes | None] = queue.Queue(_MOST)
        self._lock, self._dropped = threading.Lock(), 0
        self._thread = threading.Thread(target=self._pass_on, name="log", daemon=True)
        self._thread.start()

    def writable(self) -> bool:
        return True

    def write(self, data: Any, /) -> int:
        """Never blocks."""
        content = bytes(data)
        with self._lock:
            try:
                self._waiting.put_nowait(self._note() + content)
                self._dropped = 0
            except queue.Full:
                self._dropped += 1
        return len(content)

    def _note(self) -> bytes:
        return b"%d lines of the log were dropped: nobody read them\n" % self._dropped if self._dropped else b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Waits two seconds at most for what was written."""
        try:
            self._waiting.put(self._note(), timeout=_LATE)
            self._waiting.put(None, timeout=_LATE)
        except queue.Full:
            return
        self._thread.join(_LATE)

    def _pass_on(self) -> None:
        while (content := self._waiting.get()) is not None:
            try:
                self._stream.write(content)
                self._stream.flush()
            except (OSError, ValueError):
                continue
