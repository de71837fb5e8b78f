"""Blocking calls, beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread
import sqlalchemy as sa

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs.database import Database

_T = TypeVar("_T")


_DATABASE_SECONDS = 20.0
"""For a transaction: more than SQLite waits for its turn."""


async def beside(run: Callable[[], _T]) -> _T:
    """In a thread. A caller that leaves is not waited for: what was begun is brought to its end."""
    return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)


async def in_time(run: Callable[[], _T], seconds: float = _DATABASE_SECONDS) -> _T:
    """`beside`. Raises `StorageUnavailable` where it takes longer: the database may be gone without a word."""
    try:
        with anyio.fail_after(seconds):
            return await beside(run)
    except TimeoutError:
        raise StorageUnavailable(f"database or object store did not answer within {seconds:g} s", unsure=True) from None


async def read(database: Database, look: Callable[[sa.Connection], _T]) -> _T:
    """In a thread, in a transaction that does not write. Raises `StorageUnavailable`, and what `look` raises."""

    def run() -> _T:
        with database.reading() as connection:
            return look(connection)

    return await in_time(run)


async def write(database: Database, change: Callable[[sa.Connection], _T]) -> _T:
    """In a thread, in a transaction. Raises `StorageUnavailable`, and what `change` raises."""

    def run() -> _T:
        with database.transaction() as connection:
            return change(connection)

    return await in_time(run)
