"""The time in which a worker takes jobs: from the moment in which its server answers until it does not, or until told.

Each session is an executor of DBOS with an id, and a heartbeat, of its own. What it leaves undone is taken over by
another one as soon as it has left.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from dbos import DBOS

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs import queue, workers
from consisid_gateway.jobs.database import Database, typed_errors
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.jobs.running import NotOwner
from consisid_gateway.worker.faces import FaceReader
from consisid_gateway.worker.making import Workbench
from consisid_gateway.worker.patience import Ending, Patience
from consisid_gateway.worker.steadily import Steadily

log = logging.getLogger(__name__)

_STOP_SECONDS = 5.0
"""How long what runs may take to stop: a server needs a part of a request at most."""


class Undone(BaseException):
    """A workflow ends without an outcome. DBOS records what is an `Exception`; this leaves its row for another one."""


class Session:
    """One at a time in a process, as DBOS is.

    Args:
        name: of the worker, for people.
        bench: makes the session's workbench, of its id and patience.
    """

    def __init__(
        self, database: Database, queue: Queue, name: str, bench: Callable[[str, Patience], Workbench]
    ) -> None:
        self.id = f"{name[:40]}-{secrets.token_hex(8)}"
        self.ready = True
        self._database, self._queue, self._name = database, queue, name
        self._ending = threading.Event()
        self._patience = Patience(self._ending)
        self._bench = bench(self.id, self._patience)
        self._idle, self._running = threading.Condition(), 0
        self._heartbeat = Steadily("heartbeat", workers.BEAT_SECONDS, self._tell)

    def start(self) -> None:
        """Raises `StorageUnavailable`; `stop` it then too."""
        self._tell()
        self._heartbeat.start()
        with typed_errors():
            _launch(self._database, self.id, self._make, self._read)

    def stop(self) -> None:
        """Take no more jobs, and leave what runs to others, from its last checkpoint on."""
        self._ending.set()
        with self._idle:
            self._idle.wait_for(lambda: not self._running, _STOP_SECONDS)
        self._heartbeat.stop()
        try:
            with self._database.transaction() as connection:
                workers.leave(connection, self.id)
        except StorageUnavailable as error:
            log.warning("%s", error)
        # What has just returned has its outcome recorded by DBOS; else another worker would begin it again.
        DBOS.destroy(destroy_registry=True, workflow_completion_timeout_sec=1)

    def _make(self, job: str) -> None:
        with self._at_work(job):
            self._bench.make(job)

    def _read(self, character: str) -> None:
        with self._at_work(character):
            FaceReader(self._bench).read(character)

    @contextmanager
    def _at_work(self, name: str) -> Iterator[None]:
        if self._ending.is_set():
            raise Undone
        with self._idle:
            self._running += 1
        try:
            yield
            if not self._patience.call(lambda: self._queue.at(self.id, name)):
                raise Undone  # DBOS would wait in this thread for the outcome that another worker records
        except (NotOwner, Ending):
            log.info("%s is left to another worker", name)
            raise Undone from None
        finally:
            with self._idle:
                self._running -= 1
                self._idle.notify_all()

    def _tell(self) -> None:
        with self._database.transaction() as connection:
            workers.beat(connection, self.id, self._name, ready=self.ready)


def _launch(database: Database, executor: str, make: Callable[[str], None], read: Callable[[str], None]) -> None:
    DBOS(
        config={
            "name": queue.NAME,
            "system_database_url": database.engine.url.render_as_string(hide_password=False),
            "system_database_engine": database.engine,
            "executor_id": executor,
            "application_version": queue.FORMAT,
            "log_level": "ERROR",
            "run_migrations": False,
        }
    )

    @DBOS.workflow(name=queue.WORKFLOW)
    def make_video(job: str) -> None:
        make(job)

    @DBOS.workflow(name=queue.FACE_WORKFLOW)
    def read_face(character: str) -> None:
        read(character)

    DBOS.listen_queues([*queue.QUEUES])
    DBOS.launch()
