"""Where jobs wait: queues of DBOS in the same database."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from dbos import DBOS, DBOSClient, EnqueueOptions, error

from consisid_gateway.jobs.database import Database, typed_errors

WORKFLOW, FACE_WORKFLOW = "make_video", "read_face"
VIDEOS, URGENT, FACES = "videos", "urgent", "faces"
FORMAT = "1"
"""DBOS's application version, a whole number: of what a workflow of ours has as arguments, and of checkpoints.

A worker takes jobs of its own format alone, and puts waiting jobs of earlier ones into the queue again as such.
"""
NAME = "consisid"
QUEUES = {VIDEOS: 1.0, URGENT: 2 / 3, FACES: 1.0}
"""How long a worker waits between two looks at a queue, in proportion to the others."""
POLLING_SECONDS = 0.3
"""For ordinary videos. A look is three statements; a thousand workers want a longer time."""
_USUAL = 1
"""Priority; 0 goes first."""
_BEGUN = "PENDING"
_WAITING = ["ENQUEUED", "DELAYED", _BEGUN]


@dataclass(frozen=True, slots=True)
class Begun:
    """A workflow that was begun and has not ended.

    Attributes:
        id: of its job, or character.
        worker: that began it.
        seconds: since then.
    """

    id: str
    queue: str
    worker: str
    seconds: float


class Queue:
    """Of one process. Methods raise `StorageUnavailable` where the database cannot be reached."""

    def __init__(self, database: Database) -> None:
        self._database = database
        logging.getLogger("dbos").setLevel(logging.ERROR)  # what it warns of, workers and callers report themselves
        self._client = DBOSClient(
            system_database_engine=database.engine, application_name=NAME, lazy=True, retry_connection_errors=False
        )

    def prepare(self, polling_seconds: float | None = None) -> None:
        """Create the tables and queues that are missing. Any number of processes may at once.

        Args:
            polling_seconds: from now on of all workers, also those that run; None leaves it as it is.
        """
        with typed_errors():
            DBOS.migrate(self._database.engine.url.render_as_string(hide_password=False))
            for name, part in QUEUES.items():
                self._client.register_queue(
                    name,
                    worker_concurrency=1,
                    polling_interval_sec=part * (polling_seconds or POLLING_SECONDS),
                    on_conflict="never_update" if polling_seconds is None else "always_update",
                )

    def put(self, connection: sa.Connection, job: str, *, urgent: bool, again: bool = False) -> None:
        """Within the transaction that creates the job; `again` for one that was in the queue before, and goes first."""
        self._put(connection, WORKFLOW, URGENT if urgent else VIDEOS, job, again=again)

    def put_face(self, connection: sa.Connection, character: str, *, again: bool = False) -> None:
        """As `put`, for a character whose face is to be read."""
        self._put(connection, FACE_WORKFLOW, FACES, character, again=again)

    def resume(self, begun: Sequence[Begun]) -> None:
        """Put back what a worker has begun that is gone; what has ended in the meantime stays as it is."""
        for each in begun:
            with typed_errors():
                try:
                    self._client.resume_workflow(each.id, queue_name=each.queue)
                except error.DBOSNonExistentWorkflowError:
                    continue  # deleted meanwhile

    def begun(self) -> list[Begun]:
        """What workers are at."""
        with typed_errors():
            found = self._client.list_workflows(status=_BEGUN, load_input=False, load_output=False)
        moment = time.time() * 1000
        return [
            Begun(one.workflow_id, one.queue_name, one.executor_id or "", (moment - (one.dequeued_at or moment)) / 1000)
            for one in found
            if one.queue_name in QUEUES
        ]

    def waiting(self) -> set[str]:
        """Jobs and characters that a worker will begin, or has begun.

        Without those that wait for workers of an earlier `FORMAT`, which may have been replaced.
        """
        with typed_errors():
            found = self._client.list_workflows(status=_WAITING, load_input=False, load_output=False)
        return {one.workflow_id for one in found if one.status == _BEGUN or int(one.app_version or 0) >= int(FORMAT)}

    def at(self, worker: str, name: str) -> bool:
        """Whether a worker's begun workflow is still its own."""
        with typed_errors():
            found = self._client.list_workflows(workflow_ids=[name], load_input=False, load_output=False)
        return any(one.status == _BEGUN and one.executor_id == worker for one in found)

    def forget(self, names: Sequence[str]) -> None:
        """Delete the workflows of jobs and characters that were deleted, or have ended long ago. Idempotent."""
        with typed_errors():
            self._client.delete_workflows(list(names))

    def close(self) -> None:
        self._client.destroy()

    def _put(self, connection: sa.Connection, workflow: str, queue: str, name: str, *, again: bool) -> None:
        options: EnqueueOptions = {
            "workflow_name": workflow,
            "queue_name": queue,
            "workflow_id": name,
            "app_version": FORMAT,
        }
        if not again:
            options["priority"] = _USUAL
        self._client.enqueue_in_transaction(connection, options, name)
