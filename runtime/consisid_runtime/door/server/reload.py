"""Serves what the bundle's path has now, without losing a request: what runs ends, what waits goes on waiting."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections import Counter
from typing import Any

from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.server.supervisor import Stopped, Supervisor
from consisid_runtime.door.server.waiting import aside
from consisid_runtime.errors import ConsisIDError
from consisid_runtime.serve.edition import Edition
from consisid_runtime.serve.tritonserver import TritonServer

_OK = "OK"

log = logging.getLogger(__name__)


class Reload:
    """For one event loop.

    Attributes:
        outcomes: how many ended with "OK" or the code of an error.
        succeeded: whether the last one did; before the first, that too.
        running: whether one holds the queue.
    """

    def __init__(self, server: TritonServer, supervisor: Supervisor, queue: Queue) -> None:
        self._server, self._supervisor, self._queue = server, supervisor, queue
        self._asked = asyncio.Event()
        self.outcomes = Counter({_OK: 0})
        self.succeeded, self.running = True, False

    @property
    def fingerprint(self) -> str:
        """Of the bundle that is served."""
        return self._supervisor.edition.fingerprint

    def ask(self) -> None:
        """Reload; where this is being done, once more afterwards."""
        self._asked.set()

    async def run(self) -> None:
        """Reload whenever that is asked for, until the supervisor is closed. Errors are logged."""
        with contextlib.suppress(Stopped):
            while True:
                await self._supervisor.unless_stopped(self._asked.wait())
                self._asked.clear()
                outcome = await self._outcome()
                self.outcomes[outcome] += 1
                self.succeeded = outcome == _OK

    async def _outcome(self) -> str:
        try:
            await self._reload()
        except Stopped:
            raise
        except ConsisIDError as error:
            log.error("the reload failed, the bundle before it is served on: %s", error.wire())
            return error.code
        except Exception:
            log.exception("the reload failed, the bundle before it is served on")
            return ConsisIDError.code
        return _OK

    async def _reload(self) -> None:
        edition = await self._supervisor.unless_stopped(aside(self._server.read))
        if edition.is_same(self._server.edition):
            log.info("reload: this bundle is served already", extra=_fields(edition))
            return
        began, ahead = time.monotonic(), {"running": self._queue.running, "waiting": self._queue.waiting}
        log.info("reload: the bundle is verified, and served once what runs has ended", extra=_fields(edition, **ahead))
        self._queue.hold(self._supervisor.took)
        self.running = True
        try:
            await self._supervisor.replace(edition, self._queue)
        finally:
            self.running = False
            self._queue.resume()
        seconds = round(time.monotonic() - began, 3)
        log.info("reload: the bundle is served", extra=_fields(edition, seconds=seconds))


def _fields(edition: Edition, **more: float) -> dict[str, Any]:
    """For a line of the log."""
    folder = {} if edition.bundle is None else {"folder": str(edition.bundle.path)}
    return {"fields": {"bundle": edition.fingerprint, **folder, **more}}
