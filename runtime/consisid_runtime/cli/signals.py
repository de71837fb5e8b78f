"""What signals do to `consisid serve`: SIGTERM ends it, SIGHUP reloads."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable


def end_when_told() -> None:
    """At SIGTERM, end the process by `SystemExit` with status 0."""
    signal.signal(signal.SIGTERM, _end)


def reload_when_told(reload: Callable[[], None]) -> None:
    """At SIGHUP call `reload`.

    Where SIGHUP comes because the terminal was closed, it ends the process, as it did before; with nohup, nothing.
    """
    ignored = signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    had_terminal = _has_terminal()

    def hang_up(*_: object) -> None:
        if not had_terminal or _has_terminal():
            reload()
        elif not ignored:
            _end()

    signal.signal(signal.SIGHUP, hang_up)


def _end(*_: object) -> None:
    raise SystemExit(0)


def _has_terminal() -> bool:
    """Whether this process has a controlling terminal, which is open."""
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY))
    except OSError:
        return False
    return True
