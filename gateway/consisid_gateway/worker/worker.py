"""The worker of one server, in a process of its own or within another."""

from __future__ import annotations

import logging
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.job import Job
from consisid_gateway.jobs.queue import POLLING_SECONDS, Queue
from consisid_gateway.objects.store import Store
from consisid_gateway.worker.leading import Leader
from consisid_gateway.worker.maker import Maker
from consisid_gateway.worker.making import Workbench
from consisid_gateway.worker.patience import Ending, Patience
from consisid_gateway.worker.session import Session
from consisid_gateway.worker.webhooks import Deliverer

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5
"""Between two questions whether the server is ready."""


@dataclass(frozen=True, slots=True)
class WorkerConfig:
    """Of a worker.

    Attributes:
        kept_seconds: after which the objects of a job that has ended are deleted.
        webhook_secret: with which calls of webhooks are signed; None for no calls.
        private_webhooks: whether addresses of private networks may be called.
        unready_seconds: after which a server that is not ready loses its job to others.
        polling_seconds: see `Queue.prepare`.
    """

    kept_seconds: float = 7 * 86400.0
    webhook_secret: bytes | None = None
    private_webhooks: bool = False
    unready_seconds: float = 15.0
    polling_seconds: float = POLLING_SECONDS


class Worker:
    """Takes jobs while its server is ready. One in a process.

    Args:
        announcement: the body of a webhook, for a job that has ended.
    """

    def __init__(
        self,
        database: Database,
        store: Store,
        maker: Maker,
        announcement: Callable[[Job], str],
        settings: WorkerConfig = WorkerConfig(),
        name: str | None = None,
    ) -> None:
        self._database, self._store, self._maker = database, store, maker
        self._announcement, self._settings = announcement, settings
        self._name = name or socket.gethostname()
        self._ending, self._over = threading.Event(), threading.Event()
        self._failure: BaseException | None = None
        self._queue = Queue(database)
        self._leader = Leader(database, self._queue, store)
        self._deliverer = Deliverer(database, settings.webhook_secret, private=settings.private_webhooks)
        self._thread = threading.Thread(target=self._run, name="worker", daemon=True)

    def start(self) -> None:
        """Returns at once; a database that is away is waited for."""
        self._thread.start()

    def wait(self) -> None:
        """Returns when it has been stopped. Raises what ended it otherwise: `SchemaNewer`."""
        self._over.wait()
        if self._failure is not None:
            raise self._failure

    def stop(self) -> None:
        """Take no more jobs, and leave those that run to others, from their last checkpoints on. Idempotent."""
        self._ending.set()
        self._thread.join()

    def _run(self) -> None:
        patience = Patience(self._ending)
        try:
            patience.call(self._database.prepare)
            patience.call(lambda: self._queue.prepare(self._settings.polling_seconds))
            self._leader.start()
            self._deliverer.start()
            try:
                self._work(patience)
            finally:
                self._deliverer.stop()
                self._leader.stop()
        except Ending:
            return
        except BaseException as error:
            self._failure = error
        finally:
            self._queue.close()
            self._over.set()

    def _work(self, patience: Patience) -> None:
        """Raises `Ending`."""
        while True:
            if not self._maker.ready():
                patience.rest(_LOOK_SECONDS)
                continue
            session = Session(self._database, self._queue, self._name, self._bench)
            try:
                session.start()
                log.info("takes jobs as %s", session.id)
                self._watch(session, patience)
            except StorageUnavailable as error:
                log.warning("%s", error)
            finally:
                session.stop()
            patience.rest(_LOOK_SECONDS)

    def _watch(self, session: Session, patience: Patience) -> None:
        """Returns when the server has not been ready for too long."""
        ready_at = time.monotonic()
        while time.monotonic() - ready_at < self._settings.unready_seconds:
            patience.rest(_LOOK_SECONDS)
            session.ready = self._maker.ready()
            if session.ready:
                ready_at = time.monotonic()
        log.warning("the server is not ready: its jobs are left to others")

    def _bench(self, id: str, patience: Patience) -> Workbench:
        return Workbench(
            self._database,
            self._store,
            self._maker,
            id,
            self._settings.kept_seconds,
            self._announcement,
            patience,
        )
