"""One job, from its claim to its end."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable
from dataclasses import dataclass

from consisid_gateway.errors import VideoExpired
from consisid_gateway.jobs import running
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.ending import orphan
from consisid_gateway.jobs.job import Job, prefix_of
from consisid_gateway.jobs.running import NotOwner, Owner, Result
from consisid_gateway.objects import names
from consisid_gateway.objects.store import Store
from consisid_gateway.worker.maker import Maker
from consisid_gateway.worker.patience import Ending, Patience, pauses
from consisid_gateway.worker.previewing import spritesheet, thumbnail
from consisid_gateway.worker.reporting import Reporter
from consisid_runtime.errors import (
    Busy,
    CheckpointRefused,
    ConsisIDError,
    RequestCancelled,
    ServerDied,
    ServerError,
    ServerTimeout,
    Unauthenticated,
)
from consisid_runtime.video import Video

log = logging.getLogger(__name__)

MOST_ATTEMPTS = 3
"""Ends of a server between two checkpoints of one video: after so many the video is taken to be the cause."""
MOST_OWNERS = 50
"""Workers that took a job one after the other, each of which ended before it: after so many it is taken to end them."""
_FINAL = (ServerError.code, ServerTimeout.code)
"""Codes of a server's failures that another attempt would meet again."""


@dataclass(frozen=True, slots=True)
class Workbench:
    """What the jobs of one worker have in common.

    Attributes:
        worker: its id.
        kept_seconds: after which the objects of a job that has ended are deleted.
        announcement: the body of a webhook, for a job that has ended.
        patience: until the worker is to end.
    """

    database: Database
    store: Store
    maker: Maker
    worker: str
    kept_seconds: float
    announcement: Callable[[Job], str]
    patience: Patience

    def make(self, name: str) -> None:
        """Make the video of a job, or find out why there can be none; returns where the job has ended.

        Raises `NotOwner` for one that another worker has taken over, and `Ending`.
        """
        try:
            job = self.patience.call(lambda: self._claim(name))
            attempts = _Attempts(self, job, Owner(name, self.worker, job.epoch))
            if job.epoch > MOST_OWNERS:
                attempts.give_up()
            else:
                attempts.run()
        except NotOwner:
            if not self.patience.call(lambda: self._ended(name)):
                raise

    def _claim(self, name: str) -> Job:
        with self.database.transaction() as connection:
            return running.claim(connection, name, self.worker)

    def _ended(self, name: str) -> bool:
        with self.database.reading() as connection:
            return running.ended(connection, name)


class _Attempts:
    """At one job, by one owner."""

    def __init__(self, bench: Workbench, job: Job, owner: Owner) -> None:
        self._bench, self._job, self._owner = bench, job, owner
        self._database, self._store, self._patience = bench.database, bench.store, bench.patience

    def run(self) -> None:
        """Raises `NotOwner`, `Ending`."""
        try:
            self._publish(self._video())
        except (NotOwner, Ending):
            raise
        except ConsisIDError as error:
            self._fail(error.code, str(error))
        except Exception as error:
            reference = secrets.token_hex(4)
            log.error("job %s, error %s", self._job.id, reference, exc_info=error)
            self._fail(ConsisIDError.code, f"an unexpected failure; the worker's log has it as error {reference}")

    def give_up(self) -> None:
        """Raises `NotOwner`, `Ending`."""
        self._fail(ServerDied.code, f"{MOST_OWNERS} workers began this video, and none of them ended it")

    def _video(self) -> Video:
        """Asks the server until it has made the video, from the last checkpoint on each time."""
        checkpoint = self._job.checkpoint
        portrait = self._patience.call(lambda: self._store.get(self._job.portrait))
        for pause in pauses():
            try:
                return self._attempt(portrait, self._read(checkpoint))
            except CheckpointRefused:
                # Another bundle or kind of device: equal bytes hold for a video of one of them.
                if checkpoint is None:
                    raise
                checkpoint = None
                continue
            except (ServerDied, RequestCancelled):
                if self._patience.call(self._count) >= MOST_ATTEMPTS:
                    raise
            except Unauthenticated as error:
                log.warning("%s", error)  # the worker's fault, and not the video's
            except ServerError as error:
                if error.code in _FINAL:
                    raise
                pause = max(pause, (error.retry_after or 0.0) if isinstance(error, Busy) else 0.0)
            self._patience.rest(pause, lambda: self._patience.call(self._check))
            checkpoint = self._patience.call(self._current)
        raise AssertionError("pauses never end")

    def _attempt(self, portrait: bytes, checkpoint: bytes | None) -> Video:
        job = self._job
        making = self._bench.maker.make(
            portrait, job.prompt, job.request, urgent=job.urgent, checkpoint=checkpoint, trace=job.trace
        )
        with Reporter(self._database, self._store, self._owner, making.cancel, self._patience.ending) as reporter:
            try:
                for item in making:
                    if isinstance(item, Video):
                        return item
                    reporter.tell(item)
            except RequestCancelled:
                if reporter.lost:
                    raise NotOwner(job.id) from None
                if self._patience.ending.is_set():
                    raise Ending from None
                raise
            finally:
                making.cancel()
        raise ServerError("the server ended its answer without a video")

    def _publish(self, video: Video) -> None:
        job, kept = self._job.id, {}
        for name, content, suffix in (
            ("video", video.mp4, ".mp4"),
            ("thumbnail", thumbnail(video), ".jpg"),
            ("spritesheet", spritesheet(video), ".jpg"),
        ):
            key = kept[name] = names.result_of(job, content, suffix)
            self._patience.call(lambda key=key, content=content: self._store.put(key, content))  # type: ignore[misc]
        result = Result(**kept, video_bytes=len(video.mp4), info=video.info)
        try:
            self._patience.call(lambda: self._complete(result))
        except NotOwner:
            self._patience.call(self._clear)
            raise

    def _complete(self, result: Result) -> None:
        with self._database.transaction() as connection:
            job = running.complete(connection, self._owner, result, self._bench.kept_seconds)
            running.announce(connection, job, self._bench.announcement(job))

    def _clear(self) -> None:
        """Of a job that was deleted or cancelled meanwhile, have the objects deleted that came after that."""
        with self._database.transaction() as connection:
            if running.unwanted(connection, self._owner.job):
                orphan(connection, [prefix_of(self._owner.job)])

    def _fail(self, code: str, message: str) -> None:
        def write() -> None:
            with self._database.transaction() as connection:
                job = running.fail(connection, self._owner, code, message, self._bench.kept_seconds)
                running.announce(connection, job, self._bench.announcement(job))

        self._patience.call(write)

    def _count(self) -> int:
        with self._database.transaction() as connection:
            return running.count_attempt(connection, self._owner)

    def _check(self) -> None:
        with self._database.reading() as connection:
            running.check(connection, self._owner)

    def _current(self) -> str | None:
        with self._database.reading() as connection:
            return running.checkpoint_of(connection, self._owner)

    def _read(self, checkpoint: str | None) -> bytes | None:
        """None for one that is gone: the request then starts over."""
        if checkpoint is None:
            return None
        try:
            return self._patience.call(lambda: self._store.get(checkpoint))
        except VideoExpired:
            return None
