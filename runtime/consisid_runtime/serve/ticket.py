"""Tells the models of a running request that nobody waits for it any more.

Triton server 2.51 does not tell a step of an ensemble that the whole was cancelled. So a door names a file in a folder
of its own by a parameter of the request, and creates the file where the caller leaves: the models look for it.
"""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import MutableMapping
from pathlib import Path
from typing import Any

from consisid_runtime.errors import RequestCancelled
from consisid_runtime.wire import TICKET, TICKETS_VARIABLE, URGENT

_NAME = re.compile(r"[0-9a-f]{32}")
_SPARE = "spare-0", "spare-1"
"""Files in the folder that become tickets where none can be created: as many as there are requests at a time."""


def make_spare(folder: Path) -> None:
    """For every later ticket in this folder. Raises `OSError`."""
    for name in _SPARE:
        (folder / name).touch(mode=0o600)


class Ticket:
    """One request's, in the door.

    Args:
        folder: what `TICKETS_VARIABLE` names to the models.
    """

    def __init__(self, folder: Path) -> None:
        self.name = secrets.token_hex(16)
        self._path = folder / self.name
        self._spare: Path | None = None

    def cancel(self) -> None:
        """End the request at the models' next look, also where the disk is full. Idempotent; the folder may be gone."""
        with contextlib.suppress(OSError):
            self._path.touch(mode=0o600)
            return
        for spare in map(self._path.with_name, _SPARE):
            with contextlib.suppress(OSError):
                spare.rename(self._path)
                self._spare = spare
                return

    def close(self) -> None:
        """The request has ended: remove the file, if there is one. Idempotent; the folder may be gone."""
        spare, self._spare = self._spare, None
        with contextlib.suppress(OSError):  # its server goes, and the folder with it, or a broken disk
            self._path.unlink() if spare is None else self._path.rename(spare)


class Look:
    """The other side, in a model: progress of a stage, raising once the request is cancelled. 30 µs a look."""

    def __init__(self, path: str | None) -> None:
        self._path = path

    @property
    def ticket(self) -> str | None:
        """The ticket's name, for the models that this one calls; None without one."""
        return self._path and os.path.basename(self._path)

    def __call__(self, label: str = "", done: int = 0, total: int = 0) -> None:
        """Raises `RequestCancelled`."""
        if self._path is not None and os.path.exists(self._path):
            raise RequestCancelled("the caller left before the video was done")


def take_look(parameters: MutableMapping[str, Any]) -> Look:
    """Take the ticket out of a request's parameters.

    Without a door there is none, and the parameter stays, to be refused as an unknown option: a client chooses no path.
    """
    folder, name = os.environ.get(TICKETS_VARIABLE), parameters.get(TICKET)
    if folder is None or not isinstance(name, str) or not _NAME.fullmatch(name):
        return Look(None)
    del parameters[TICKET]
    return Look(os.path.join(folder, name))


def take_urgent(parameters: MutableMapping[str, Any]) -> bool:
    """Take out whether a door calls the request urgent; without a door the parameter stays, to be refused."""
    if TICKETS_VARIABLE not in os.environ or not isinstance(parameters.get(URGENT), bool):
        return False
    return bool(parameters.pop(URGENT))
