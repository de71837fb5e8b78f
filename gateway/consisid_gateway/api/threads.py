"""Blocking calls, beside the event loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import anyio.to_thread
import sqlalchemy as sa

from consisid_gateway.jobs.database import Database

_T = TypeVar("_T")


async def beside(run: Callable[[], _T]) -> _T:
    """In a thread. A caller that leaves is not waited for: what was begun is brought to its end."""
    return await anyio.to_thread.run_sync(run, abandon_on_cancel=True)


async def read(database: Database, look: Callable[[sa.Connection], _T]) -> _T:
    """In a thread, in a transaction that does not write. Raises `StorageUnavailable`, and what `look` raises."""

    def run() -> _T:
        with database.reading() as connection:
            return look(connection)

    return await beside(run)


async def write(database: Database, change: Callable[[sa.Connection], _T]) -> _T:
    """In a thread, in a transaction. Raises `StorageUnavailable`, and what `change` raises."""

    def run() -> _T:
        with database.transaction() as connection:
            return change(connection)

    return await beside(run)
