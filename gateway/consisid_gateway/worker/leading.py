"""What one process of all does for all jobs: it finds those whose worker is gone, and removes what is over."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs import characters, creation, deliveries, ending, events, lost, workers
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.job import PARENTS
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.objects.store import Store
from consisid_gateway.worker.steadily import Steadily

log = logging.getLogger(__name__)

_TICK = 0.5
"""Seconds between two looks for workers that are gone."""
_STRANGE_SECONDS = 3600.0
"""After which objects without a row are no longer those of a request that is being accepted."""


class Leader:
    """Threads of a process that do this whenever those of no other process do.

    Everything is idempotent, and goes on when a database or a store that was away is back.
    """

    def __init__(self, database: Database, queue: Queue, store: Store) -> None:
        self._database, self._queue, self._store = database, queue, store
        self._process = secrets.token_hex(8)
        self._leads = False
        self._refused = set[str]()
        self._duties = [
            _Regularly(1.0, self._expire),
            _Regularly(1.0, self._remove_objects),
            _Regularly(60.0, self._forget),
            _Regularly(3600.0, self._remove_strange),
        ]
        self._whole = _Regularly(30.0, self._put_lost_again)
        self._threads = [
            Steadily("takeover", _TICK, self._look_after_jobs),
            Steadily("removal", _TICK, self._remove_what_is_over),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        for thread in self._threads:
            thread.stop()
        try:
            with self._database.transaction() as connection:
                workers.resign(connection, self._process)
        except StorageUnavailable as error:
            log.warning("%s", error)

    def _look_after_jobs(self) -> None:
        if self._lead():
            self._take_over()
            self._whole()

    def _lead(self) -> bool:
        """Also for the other thread."""
        leads = False
        try:
            with self._database.transaction() as connection:
                leads = workers.lead(connection, self._process)
        finally:
            self._leads = leads
        return leads

    def _take_over(self) -> None:
        begun = self._queue.begun()
        with self._database.reading() as connection:
            if not workers.steady(connection):
                return
            gone = lost.gone(connection, begun)
            unowned = lost.running(connection)
        for one in gone:
            log.warning("%s is taken over from %s", one.id, one.worker)
        self._queue.resume(gone)
        if unowned.keys() - {one.id for one in begun}:
            self._put_again(unowned, [])

    def _put_lost_again(self) -> None:
        with self._database.reading() as connection:
            jobs, faces = lost.waiting(connection)
        self._put_again(jobs, faces)

    def _put_again(self, jobs: dict[str, bool], faces: list[str]) -> None:
        """Those that the queue does not know, or whose workflow has ended."""
        waiting = self._queue.waiting()
        jobs = {job: urgent for job, urgent in jobs.items() if job not in waiting}
        faces = [face for face in faces if face not in waiting]
        if jobs or faces:
            log.warning("put into the queue again: %s", ", ".join([*jobs, *faces]))
            self._queue.forget([*jobs, *faces])
            with self._database.transaction() as connection:
                lost.put_again(connection, self._queue, jobs, faces)

    def _remove_what_is_over(self) -> None:
        for duty in self._duties:
            if self._leads:
                duty()

    def _expire(self) -> None:
        for expire in (ending.expire, characters.expire):
            with self._database.transaction() as connection:
                expire(connection)

    def _remove_objects(self) -> None:
        """One prefix that cannot be deleted stops no other; where two cannot, the store is taken to be away."""
        with self._database.reading() as connection:
            prefixes = ending.orphaned(connection)
        failed = False
        for prefix in prefixes:
            try:
                self._store.delete_all(prefix)
            except StorageUnavailable as error:
                if failed:
                    raise
                if prefix not in self._refused:
                    log.warning("%s cannot be deleted: %s", prefix, error)
                self._refused.add(prefix)
                failed = True
                continue
            self._refused.discard(prefix)
            if name := ending.whole(prefix):
                self._queue.forget([name])
            with self._database.transaction() as connection:
                ending.removed(connection, prefix)

    def _remove_strange(self) -> None:
        for parent in PARENTS:
            prefixes = self._store.idle(parent, _STRANGE_SECONDS)
            with self._database.transaction() as connection:
                ending.orphan(connection, ending.strange(connection, prefixes))

    def _forget(self) -> None:
        olds = (events.forget_old, deliveries.forget_old, creation.forget_old_keys, workers.forget_old)
        for forget in olds:
            with self._database.transaction() as connection:
                forget(connection)


class _Regularly:
    """Runs something when it is called, but not more often than every so many seconds."""

    def __init__(self, seconds: float, run: Callable[[], None]) -> None:
        self._seconds, self._run, self._due = seconds, run, 0.0

    def __call__(self) -> None:
        if time.monotonic() >= self._due:
            self._due = time.monotonic() + self._seconds
            self._run()
