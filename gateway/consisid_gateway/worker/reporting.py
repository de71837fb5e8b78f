"""What a job's owner tells while it computes, and how it learns that it owns the job no longer."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs import running
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.running import NotOwner, Owner
from consisid_gateway.objects import names
from consisid_gateway.objects.store import Store
from consisid_runtime.events import Event

log = logging.getLogger(__name__)

_INTERVAL = 0.1
"""Seconds between two statements: events of several steps are written at once."""
_CHECK_INTERVAL = 0.25
"""Seconds between two looks at the row where nothing is to be told: a cancelled job frees its device soon."""
_RETRY = 1.0
"""Seconds until a database or a store that was away is asked again."""


class Reporter:
    """Writes events and checkpoints in a thread of its own. A context manager of one attempt at a job.

    A database or a store that is away delays what is told, and ends nothing: the computation goes on, and the next
    checkpoint replaces one that could not be kept. What could not be told until the end is told no more.

    Args:
        stop: called where the job is no longer this owner's, or the worker is to end.
        ending: set where the worker is to end.
    """

    def __init__(
        self, database: Database, store: Store, owner: Owner, stop: Callable[[], None], ending: threading.Event
    ) -> None:
        self._database, self._store, self._owner, self._stop = database, store, owner, stop
        self._worker_ends = ending
        self._lock, self._news = threading.Lock(), list[Event]()
        self._checkpoint: bytes | None = None
        self._over, self._wake = False, threading.Event()
        self._lost = False
        self._thread = threading.Thread(target=self._run, name=f"reporter of {owner.job}", daemon=True)

    @property
    def lost(self) -> bool:
        """Whether the job is no longer this owner's."""
        return self._lost

    def tell(self, event: Event) -> None:
        """Soon; an event's checkpoint replaces one that was not kept yet."""
        with self._lock:
            if event.checkpoint is not None:
                self._checkpoint = event.checkpoint
                self._wake.set()
            self._news.append(replace(event, checkpoint=None))

    def __enter__(self) -> Reporter:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:  # the video is there
            self._take_checkpoint()
        self._over = True
        self._wake.set()
        self._thread.join()

    def _run(self) -> None:
        report_at = keep_at = 0.0
        checked = time.monotonic()
        while True:
            self._wake.wait(_INTERVAL)
            self._wake.clear()
            over = self._over
            if self._worker_ends.is_set():
                self._stop()
            moment = time.monotonic()
            try:
                news = self._take_news(moment - checked >= _CHECK_INTERVAL) if moment >= report_at or over else None
                if news is not None:
                    try:
                        self._report(news)
                        checked = moment
                    except StorageUnavailable:
                        report_at = moment + _RETRY
                        with self._lock:
                            self._news = [*news, *self._news]
                if (moment >= keep_at or over) and (checkpoint := self._take_checkpoint()) is not None:
                    try:
                        self._keep(checkpoint)
                    except StorageUnavailable:
                        keep_at = moment + _RETRY
                        with self._lock:
                            self._checkpoint = self._checkpoint or checkpoint
            except NotOwner:
                self._lost = True
                self._stop()
                return
            except Exception:
                log.exception("what job %s tells", self._owner.job)
            if over:
                return

    def _take_news(self, check: bool) -> list[Event] | None:
        """None where nothing needs to be written."""
        with self._lock:
            news, self._news = self._news, []
        return news if news or check else None

    def _take_checkpoint(self) -> bytes | None:
        with self._lock:
            checkpoint, self._checkpoint = self._checkpoint, None
        return checkpoint

    def _report(self, news: Sequence[Event]) -> None:
        with self._database.transaction() if news else self._database.reading() as connection:
            running.report(connection, self._owner, news)

    def _keep(self, checkpoint: bytes) -> None:
        key = names.checkpoint_of(self._owner.job, self._owner.epoch)
        self._store.put(key, checkpoint)
        try:
            with self._database.transaction() as connection:
                before = running.keep_checkpoint(connection, self._owner, key)
        except NotOwner:
            self._store.delete(key)
            raise
        if before is not None:
            self._store.delete(before)
