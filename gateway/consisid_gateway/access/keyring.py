"""Keys as one replica knows them, asked of the database again and again."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

from consisid_gateway.access import keys
from consisid_gateway.access.caller import Caller
from consisid_gateway.jobs.database import Database

KNOWN_SECONDS = 1.0
"""For which a key is taken for valid without asking: so long a revoked one may still work."""
_KNOWN = 4096
"""Keys that are remembered."""


class Keyring:
    """Of one event loop."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: OrderedDict[str, tuple[Caller, float]] = OrderedDict()
        self._made, self._looked = False, float("-inf")

    def knew(self, key: str) -> bool:
        """Whether it was valid when it was asked for last."""
        return keys.digest(key) in self._known

    async def find(self, key: str) -> Caller | None:
        """Whose it is; None for one that does not exist, or was revoked. Raises `StorageUnavailable`."""
        digest = keys.digest(key)
        caller, until = self._known.get(digest, (None, 0.0))
        if time.monotonic() < until:
            return caller
        caller = await asyncio.to_thread(self._find, key)
        if caller is None:
            self._known.pop(digest, None)
            return None
        self._known[digest] = (caller, time.monotonic() + KNOWN_SECONDS)
        self._known.move_to_end(digest)
        if len(self._known) > _KNOWN:
            self._known.popitem(last=False)
        return caller

    async def any_made(self) -> bool:
        """Whether there was ever a key. Raises `StorageUnavailable`."""
        if not self._made and time.monotonic() - self._looked > KNOWN_SECONDS:
            self._made = await asyncio.to_thread(self._any_made)
            self._looked = time.monotonic()
        return self._made

    def _find(self, key: str) -> Caller | None:
        if not keys.looks_right(key):
            return None
        with self._database.reading() as connection:
            found = keys.find(connection, key)
        return None if found is None else found.caller

    def _any_made(self) -> bool:
        with self._database.reading() as connection:
            return keys.any_made(connection)
