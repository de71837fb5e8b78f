"""Jobs for tests: made as the API makes them, and looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from consisid_gateway.jobs import creation, reading
from consisid_gateway.jobs.creation import Wanted
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.job import Job, new_id
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.objects import names
from consisid_gateway.objects.store import Store
from consisid_runtime import Options

TENANT = "tenant"
PORTRAIT = b"portrait"


def with_tables(url: str) -> str:
    """The same URL; the database has all tables now."""
    database = Database(url)
    database.prepare()
    queue = Queue(database)
    queue.prepare()
    queue.close()
    database.close()
    return url


@dataclass(frozen=True, slots=True)
class Shop:
    """A database with its queue, and a store in a folder."""

    database: Database
    queue: Queue
    store: Store
    store_folder: Path

    def order(self, prompt: str = "a prompt", portrait: bytes = PORTRAIT, steps: int = 20, **more: Any) -> Job:
        id = new_id("video")
        key = names.portrait_of(id)
        self.store.put(key, portrait)
        options = more.pop("options", Options(steps=steps))
        wanted = Wanted(id, TENANT, prompt, options, key, "consisid", **more)
        with self.database.transaction() as connection:
            return creation.create(connection, self.queue, wanted)

    def job(self, id: str) -> Job:
        with self.database.reading() as connection:
            return reading.get(connection, TENANT, id)

    def jobs(self, ids: Sequence[str]) -> list[Job]:
        return [self.job(id) for id in ids]

    def open(self) -> int:
        """Jobs that have not ended."""
        with self.database.reading() as connection:
            waiting, _ = reading.usage(connection, TENANT)
        return waiting

    def set(self, table: sa.Table, **values: Any) -> None:
        """In all rows."""
        with self.database.transaction() as connection:
            connection.execute(sa.update(table).values(values))

    def count(self, table: sa.Table) -> int:
        with self.database.reading() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(table)) or 0
