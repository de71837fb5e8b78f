"""Requests a minute of a key, over all replicas.

Each replica counts in memory, and adds what it counted to the database at most once a second: a statement for every
request would cost more than most requests. A key may so have a second's worth of requests more on each replica.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite

from consisid_gateway.access.caller import Caller
from consisid_gateway.errors import LimitReached
from consisid_gateway.jobs.database import Database, now
from consisid_gateway.jobs.tables import windows

MINUTE = 60
_SHARED_SECONDS = 1.0


@dataclass
class _Count:
    """Of one key, as far as this replica knows.

    Attributes:
        total: of all replicas when it was last read, and what this one has counted since.
        own: counted here and not in the database yet.
        ends: when the minute does, by `time.monotonic`.
        read: when the database was last asked.
    """

    total: int = 0
    own: int = 0
    ends: float = float("-inf")
    read: float = float("-inf")


class Rates:
    """Of one replica."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[str, _Count] = {}

    async def count(self, caller: Caller) -> None:
        """One request. Raises `LimitReached`, `StorageUnavailable`."""
        most = caller.limits.requests_per_minute
        if most is None or caller.key is None:
            return
        moment = time.monotonic()
        count = self._counts.setdefault(caller.key, _Count())
        count.total, count.own = count.total + 1, count.own + 1
        if moment - count.read >= _SHARED_SECONDS or moment >= count.ends:
            count.read, own, count.own = moment, count.own, 0
            total, left = await asyncio.to_thread(self._add, caller.key, own)
            count.total, count.ends = total + count.own, moment + left
        if count.total > most:
            left = max(1.0, count.ends - moment)
            raise LimitReached(f"this key may send {most} requests a minute; try again in {left:.0f} s", left)

    def _add(self, key: str, requests: int) -> tuple[int, float]:
        """Of all replicas in this minute, and the seconds until it ends."""
        insert = sqlite.insert if self._database.embedded else postgresql.insert
        with self._database.transaction() as connection:
            moment = connection.scalar(sa.select(now())) or 0.0
            minute = int(moment // MINUTE)
            new = insert(windows).values(key=key, window=minute, requests=requests)
            added = new.on_conflict_do_update(
                index_elements=[windows.c.key, windows.c.window],
                set_={"requests": windows.c.requests + requests},
            )
            total = connection.scalar(added.returning(windows.c.requests)) or 0
            if total == requests:
                connection.execute(sa.delete(windows).where(windows.c.key == key, windows.c.window < minute))
        return total, (minute + 1) * MINUTE - moment
