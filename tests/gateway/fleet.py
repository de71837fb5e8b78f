"""Worker processes that are killed and frozen, and what became of their jobs."""

from __future__ import annotations

import json
import math
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from shop import PORTRAIT, Shop
from simulated import digest_of, expected

from consisid_gateway.jobs.job import Job, Status
from consisid_gateway.jobs.queue import POLLING_SECONDS
from consisid_gateway.jobs.workers import alive
from consisid_runtime import Options

_SCRIPT = Path(__file__).parent / "processes" / "simulated_worker.py"
_TRIGGERS = {
    "sqlite": """
        CREATE TABLE test_log (kind TEXT, job TEXT, epoch INTEGER, at DOUBLE PRECISION);
        CREATE TRIGGER test_published AFTER UPDATE OF status ON consisid_jobs WHEN NEW.status = 'completed' BEGIN
            INSERT INTO test_log VALUES ('published', NEW.id, NEW.epoch, (julianday('now') - 2440587.5) * 86400.0); END;
        CREATE TRIGGER test_claimed AFTER UPDATE OF epoch ON consisid_jobs BEGIN
            INSERT INTO test_log VALUES ('claimed', NEW.id, NEW.epoch, (julianday('now') - 2440587.5) * 86400.0); END;
        CREATE TRIGGER test_resumed AFTER UPDATE OF status ON workflow_status WHEN NEW.status = 'ENQUEUED' BEGIN
            INSERT INTO test_log
            VALUES ('resumed', NEW.workflow_uuid, 0, (julianday('now') - 2440587.5) * 86400.0); END;
        """,
    "postgresql": """
        CREATE TABLE test_log (kind TEXT, job TEXT, epoch INTEGER, at DOUBLE PRECISION);
        CREATE FUNCTION test_note() RETURNS trigger AS $$ BEGIN
            INSERT INTO test_log VALUES (TG_ARGV[0], NEW.id, NEW.epoch, extract(epoch from clock_timestamp()));
            RETURN NULL; END $$ LANGUAGE plpgsql;
        CREATE FUNCTION test_note_resumed() RETURNS trigger AS $$ BEGIN
            INSERT INTO test_log VALUES ('resumed', NEW.workflow_uuid, 0, extract(epoch from clock_timestamp()));
            RETURN NULL; END $$ LANGUAGE plpgsql;
        CREATE TRIGGER test_published AFTER UPDATE OF status ON consisid_jobs FOR EACH ROW
            WHEN (NEW.status = 'completed') EXECUTE FUNCTION test_note('published');
        CREATE TRIGGER test_claimed AFTER UPDATE OF epoch ON consisid_jobs FOR EACH ROW
            EXECUTE FUNCTION test_note('claimed');
        CREATE TRIGGER test_resumed AFTER UPDATE OF status ON dbos.workflow_status FOR EACH ROW
            WHEN (NEW.status = 'ENQUEUED') EXECUTE FUNCTION test_note_resumed();
        """,
}
"""The database's own word for what happened: not that of the code that is tested."""


@dataclass(frozen=True, slots=True)
class Blow:
    """A worker was killed, or frozen, at a moment; `job` is what it was at."""

    job: str
    epoch: int
    at: float
    frozen: bool


@dataclass(frozen=True, slots=True)
class Outage:
    """From and to when the database, or the store, was away."""

    start: float
    end: float
    of_database: bool

    def overlap(self, start: float, end: float) -> float:
        """Seconds of this that are between two moments."""
        return max(0.0, min(end, self.end) - max(start, self.start))


class Fleet:
    """Workers of one database. A context manager; ends what is left of them.

    Args:
        step_seconds: of the simulated makers; a part, after which a checkpoint follows, has `PART` steps.
    """

    PART = 10

    def __init__(self, shop: Shop, url: str, folder: Path, step_seconds: float) -> None:
        self.shop, self._url, self._folder, self._step_seconds = shop, url, folder, step_seconds
        self._log = folder / "parts"
        self.blows: list[Blow] = []
        self.outages: list[Outage] = []
        self.part_steps, self.polling_seconds = self.PART, POLLING_SECONDS
        self._names = iter(range(1_000_000))
        self.workers: dict[int, str] = {}
        """Number of a process → its name."""

    def __enter__(self) -> Self:
        raw = self.shop.database.engine.raw_connection()
        sql = _TRIGGERS[self.shop.database.engine.dialect.name]
        if self.shop.database.embedded:
            raw.driver_connection.executescript(sql)
        else:
            raw.cursor().execute(sql)
            raw.commit()
        raw.close()
        self._messages = (self._folder / "messages").open("ab")
        self._forks = subprocess.Popen(
            [sys.executable, str(_SCRIPT), "--forks"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._messages,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in list(self.workers):
            os.kill(process, signal.SIGKILL)
        self._forks.kill()
        self._forks.wait()
        for pipe in (self._forks.stdin, self._forks.stdout, self._messages):
            assert pipe is not None
            pipe.close()

    def start(self) -> int:
        """A new worker."""
        assert self._forks.stdin and self._forks.stdout
        name = f"w{next(self._names)}"
        values = {"step-seconds": self._step_seconds, "part-steps": self.part_steps, "log": self._log, "name": name}
        values["polling-seconds"] = self.polling_seconds
        options = [text for option, value in values.items() for text in (f"--{option}", str(value))]
        self._forks.stdin.write(json.dumps([self._url, str(self.shop.store_folder), *options]) + "\n")
        self._forks.stdin.flush()
        process = int(self._forks.stdout.readline())
        self.workers[process] = name
        return process

    def kill(self, process: int) -> None:
        name = self.workers.pop(process)
        os.kill(process, signal.SIGKILL)
        self._note(name, frozen=False)

    def freeze(self, process: int) -> None:
        """It stands still until `thaw`; others cannot tell it from one that is dead."""
        os.kill(process, signal.SIGSTOP)
        self._note(self.workers[process], frozen=True)

    def locked(self) -> bool:
        """Whether nobody can write to the embedded database: a worker that was frozen in a transaction has its lock."""
        with closing(sqlite3.connect(self.shop.database.engine.url.database or "", timeout=0.5)) as connection:
            try:
                connection.execute("BEGIN IMMEDIATE")
            except sqlite3.OperationalError:
                return True
            connection.rollback()
            return False

    def thaw(self, process: int) -> None:
        """Also for one that was killed meanwhile."""
        with suppress(ProcessLookupError):
            os.kill(process, signal.SIGCONT)

    def end(self, seconds: float) -> None:
        """Tell all to end, and wait for it."""
        for process in self.workers:
            os.kill(process, signal.SIGTERM)
        end = time.monotonic() + seconds
        while self.workers:
            for process in list(self.workers):
                if not Path(f"/proc/{process}").exists():
                    del self.workers[process]
            assert time.monotonic() < end, f"{len(self.workers)} workers do not end"
            time.sleep(0.02)

    def ready(self) -> set[str]:
        """The ids of workers that take jobs."""
        with self.shop.database.reading() as connection:
            return alive(connection)

    def pick(self, chance: random.Random) -> int:
        return chance.choice(sorted(self.workers))

    def busiest(self) -> int | None:
        """The worker whose job has the most steps left; None where none is at a job."""
        least = sa.text("SELECT worker FROM consisid_jobs WHERE status = 'in_progress' ORDER BY done")
        with self.shop.database.reading() as connection:
            at_work = [worker.rpartition("-")[0] for worker in connection.scalars(least)]
        names = {name: process for process, name in self.workers.items()}
        return next((names[name] for name in at_work if name in names), None)

    def _note(self, name: str, *, frozen: bool) -> None:
        at = time.time()
        with self.shop.database.reading() as connection:
            found = connection.execute(
                sa.text("SELECT id, epoch FROM consisid_jobs WHERE status = 'in_progress' AND worker LIKE :name"),
                {"name": f"{name}-%"},
            )
            self.blows += [Blow(row.id, row.epoch, at, frozen) for row in found]

    def verdict(self, prompts: dict[str, str], steps: int) -> dict[str, Any]:
        """Asserts what must hold of all jobs, id → prompt, and returns figures."""
        options = Options(steps=steps)
        logged = self._logged()
        published = Counter(job for kind, job, _, _ in logged if kind == "published")
        claims = Counter(job for kind, job, _, _ in logged if kind == "claimed")
        computed: Counter[str] = Counter()
        for line in self._log.read_text().splitlines():
            digest, first, last = line.split()
            computed[digest] += int(last) - int(first)
        again = 0
        for id, prompt in prompts.items():
            job = self.shop.job(id)
            assert job.status is Status.COMPLETED, (id, job.status, job.error_code, job.error_message)
            assert published[id] == 1, f"{id} was published {published[id]} times"
            video = expected(PORTRAIT, prompt, options)
            assert job.video is not None
            assert self.shop.store.get(job.video) == video.mp4, f"{id} has other bytes"
            files = list((self.shop.store_folder / "jobs" / id).glob("*.mp4"))
            assert len(files) == 1, f"{id} has {len(files)} videos"
            more = computed[digest_of(PORTRAIT, prompt, options)] - steps
            most = self.part_steps * (claims[id] - 1 + self._unkept(job))
            assert 0 <= more <= most, f"{id}: {more} steps were computed again by {claims[id]} owners"
            again += more
        return {
            "jobs": len(prompts),
            "owners": claims.total(),
            "blows_at_a_job": len(self.blows),
            "steps_computed_again": again,
            **self._takeovers(logged),
        }

    def _unkept(self, job: Job) -> int:
        """Parts of a job that may be computed again, beside one for each owner that it lost.

        One that goes on after it was frozen may end its part before it learns that another owns the job; and while
        the database or the store is away, no checkpoint is kept.
        """
        assert job.started_at is not None and job.completed_at is not None
        parts = sum(blow.frozen for blow in self.blows if blow.job == job.id)
        for outage in self.outages:
            overlap = outage.overlap(job.started_at, job.completed_at)
            parts += math.ceil(overlap / (self._step_seconds * self.part_steps))
        return parts

    def _takeovers(self, logged: list[tuple[str, str, int, float]]) -> dict[str, float]:
        """Seconds until the job of a worker that was hit was in the queue again, or with another worker.

        `most_with_database_seconds` does not count those in which there was no database to note it in.
        """
        taken, with_database = [], []
        for blow in self.blows:
            later = [at for _, job, epoch, at in logged if job == blow.job and at > blow.at and epoch != blow.epoch]
            if later:  # else its video was finished before
                end = min(later)
                taken.append(end - blow.at)
                away = (outage.overlap(blow.at, end) for outage in self.outages if outage.of_database)
                with_database.append(end - blow.at - max(away, default=0.0))
        taken.sort()
        return {
            "takeovers": len(taken),
            "slowest_takeover_seconds": round(taken[-1], 2) if taken else 0.0,
            "median_takeover_seconds": round(taken[len(taken) // 2], 2) if taken else 0.0,
            "most_with_database_seconds": round(max(with_database, default=0.0), 2),
        }

    def _logged(self) -> list[tuple[str, str, int, float]]:
        with self.shop.database.reading() as connection:
            return [tuple(row) for row in connection.execute(sa.text("SELECT * FROM test_log ORDER BY at"))]
