"""The parts as processes: started, started again where one dies, ended in order."""

from __future__ import annotations

import select
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

from consisid_gateway.up.child import Child, Part
from consisid_runtime.errors import ConsisIDError, from_wire

_LOOK = 0.1
"""Seconds between two looks whether one has ended."""
_PAUSE, _LONGEST_PAUSE, _SETTLED = 0.5, 30.0, 60.0
"""Seconds before one that died is started again; each further time twice as long; after so many it had worked."""


class _Watched:
    """A child, and when it is to be started again."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.pause, self.due, self.began = _PAUSE, 0.0, time.monotonic()
        self.down = False


class Supervisor:
    """Of one `consisid up`. In one thread, which must be the process's first.

    Args:
        parts: in the order in which they are to end.
        log: takes each line, with the name of the part that wrote it.
    """

    def __init__(self, parts: Sequence[Part], log: Callable[[str, str], None]) -> None:
        self._log = log
        self._all = [_Watched(Child(part, partial(log, part.name))) for part in parts]

    def start(self) -> Mapping[str, Mapping[str, Any]]:
        """Start all at once; returns what each told when it was ready, by name.

        Raises the error with which the first one ended that could not start.
        """
        for one in self._all:
            one.child.start()
        while any(one.child.told is None for one in self._all):
            self._listen()
            for one in self._all:
                if not one.child.running:
                    one.child.read()
                    self._refuse(one.child)
        for one in self._all:
            if "error" in (one.child.told or {}):
                self._refuse(one.child)
        return {one.child.part.name: one.child.told or {} for one in self._all}

    def run(self) -> NoReturn:
        """Keep them running; an exception, such as a signal's, ends it."""
        while True:
            self._listen()
            for one in self._all:
                self._look(one)

    def reload(self, name: str) -> None:
        """Send SIGHUP to one part. For signal handlers."""
        for one in self._all:
            if one.child.part.name == name and one.child.running:
                one.child.reload()

    def stop(self) -> None:
        """Ask one after the other to end, and kill who takes too long; whoever interrupts it kills all. Idempotent."""
        try:
            for one in self._all:
                self._end(one.child)
        finally:
            for one in self._all:
                one.child.kill()

    def _end(self, child: Child) -> None:
        if not child.running:
            return
        child.ask_to_end()
        deadline = time.monotonic() + child.part.grace
        while child.running and time.monotonic() < deadline:
            self._listen()
        if child.running:
            self._log(child.part.name, f"did not end within {child.part.grace:g} s, and was killed")
            child.kill()
        child.read()

    def _listen(self) -> None:
        pipes = {pipe: one.child for one in self._all for pipe in one.child.pipes()}
        if not pipes:
            time.sleep(_LOOK)
            return
        found, _, _ = select.select(list(pipes), [], [], _LOOK)
        for child in {id(pipes[pipe]): pipes[pipe] for pipe in found}.values():
            child.read()

    def _look(self, one: _Watched) -> None:
        child, moment = one.child, time.monotonic()
        if child.running:
            return
        if not one.down:
            child.read()
            if moment - one.began > _SETTLED:
                one.pause = _PAUSE
            one.down, one.due = True, moment + one.pause
            self._log(child.part.name, f"{_ended(child)}; is started again in {one.pause:g} s")
            one.pause = min(2 * one.pause, _LONGEST_PAUSE)
        elif moment >= one.due:
            one.down, one.began = False, moment
            try:
                child.start()
            except (OSError, subprocess.SubprocessError) as error:  # no memory, or too many processes, for now
                self._log(child.part.name, f"cannot be started: {error}")

    def _refuse(self, child: Child) -> NoReturn:
        error = (child.told or {}).get("error")
        if isinstance(error, dict):
            raise from_wire(f"{error.get('code')}: {error.get('message')}")
        raise ConsisIDError(f"{child.part.name} {_ended(child)} before it was ready; see its log above")


def _ended(child: Child) -> str:
    status = child.status
    if status is None or status >= 0:
        return f"ended with exit status {status}"
    try:
        return f"was ended by {signal.Signals(-status).name}"
    except ValueError:
        return f"was ended by signal {-status}"
