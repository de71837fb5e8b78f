"""Threads that do the same thing for as long as a process runs."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from consisid_gateway.errors import StorageUnavailable

log = logging.getLogger(__name__)


class Steadily:
    """Calls `run` again and again in a thread, whatever it raises. What is away is logged once until it is back.

    Args:
        seconds: between two calls.
    """

    def __init__(self, name: str, seconds: float, run: Callable[[], None]) -> None:
        self._seconds, self._run = seconds, run
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._loop, name=name, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the last call has."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _loop(self) -> None:
        away = False
        while not self._over.wait(self._seconds):
            try:
                self._run()
                if away:
                    log.warning("%s: it answers again", self._thread.name)
                away = False
            except StorageUnavailable as error:
                if not away:
                    log.warning("%s: %s", self._thread.name, error)
                away = True
            except Exception:
                log.exception("%s", self._thread.name)
