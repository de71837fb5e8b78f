"""SIGHUP means "reload", unless it says that the terminal is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

SCRIPT = """
import fcntl, signal, sys, termios, time
from consisid_runtime.cli.signals import end_when_told, reload_when_told
terminal, ignored = (word == "yes" for word in sys.argv[1:])
if terminal:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
if ignored:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
end_when_told()
reload_when_told(lambda: print("reload", flush=True))
print("ready", flush=True)
while True:
    time.sleep(60)
"""


@contextmanager
def waiting(*, terminal: bool, ignored: bool = False) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A process that waits for signals, and the other side of its terminal."""
    master, slave = os.openpty()
    words = ["yes" if word else "no" for word in (terminal, ignored)]
    command = [sys.executable, "-c", SCRIPT, *words]
    with subprocess.Popen(command, stdin=slave, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        os.close(slave)
        try:
            assert process.stdout is not None and process.stdout.readline() == "ready\n"
            yield process, master
        finally:
            process.kill()


@pytest.mark.parametrize(("terminal", "ignored"), [(False, False), (True, False), (True, True)])
def test_it_reloads(terminal: bool, ignored: bool) -> None:
    with waiting(terminal=terminal, ignored=ignored) as (process, master):
        for _ in range(2):
            process.send_signal(signal.SIGHUP)
            assert process.stdout is not None and process.stdout.readline() == "reload\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        os.close(master)


def test_a_closed_terminal_ends_it() -> None:
    with waiting(terminal=True) as (process, master):
        os.close(master)
        assert process.wait(10) == 0


def test_but_not_with_nohup() -> None:
    with waiting(terminal=True, ignored=True) as (process, master):
        os.close(master)
        time.sleep(0.3)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0 and process.stdout is not None and process.stdout.read() == ""
