"""Addresses that try keys which do not exist. No key can be guessed; each try would cost a look into the database."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

from consisid_gateway.errors import LimitReached

MOST = 20
SECONDS = 60.0
_ADDRESSES = 4096
"""That are remembered; the one that failed longest ago is forgotten first."""


class Attempts:
    """Of one replica: `MOST` in `SECONDS`, for each address.

    Args:
        clock: seconds, of any beginning.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._failed: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def check(self, address: str) -> None:
        """Raises `LimitReached` for one that has failed too often."""
        since, count = self._failed.get(address, (0.0, 0))
        left = since + SECONDS - self._clock()
        if count >= MOST and left > 0:
            raise LimitReached(f"{count} keys in a minute were none; try again in {left:.0f} s", left)

    def fail(self, address: str) -> None:
        """It tried one that does not exist."""
        moment = self._clock()
        since, count = self._failed.pop(address, (moment, 0))
        self._failed[address] = (since, count + 1) if moment < since + SECONDS else (moment, 1)
        if len(self._failed) > _ADDRESSES:
            self._failed.popitem(last=False)
