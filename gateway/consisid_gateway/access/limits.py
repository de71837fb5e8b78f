"""What a key may have at once. Called in the transaction that creates: two at once do not exceed it together."""

from __future__ import annotations

import sqlalchemy as sa

from consisid_gateway.access.caller import Caller
from consisid_gateway.errors import LimitReached
from consisid_gateway.jobs import reading
from consisid_gateway.jobs.tables import keys

_RETRY_SECONDS = 15.0
"""When a job of the caller's may have ended."""


def require_room(connection: sa.Connection, caller: Caller, *, jobs: int = 1, stored_bytes: int = 0) -> None:
    """Raises `LimitReached` where the caller's tenant has as much as the key allows.

    Args:
        jobs: to be created; 0 for what is none.
        stored_bytes: that are to be kept with it.
    """
    limits = caller.limits
    if limits.jobs is None and limits.stored_bytes is None:
        return
    # Held until the transaction ends; SQLite's writers have their turns anyway.
    own = sa.select(keys.c.id).where(keys.c.tenant == caller.tenant).order_by(keys.c.id).with_for_update()
    connection.execute(own).all()
    waiting, stored = reading.usage(connection, caller.tenant)
    if limits.jobs is not None and jobs and waiting + jobs > limits.jobs:
        raise LimitReached(
            f"this key may have {limits.jobs} videos that are not done, there are {waiting}", _RETRY_SECONDS
        )
    if limits.stored_bytes is not None and stored + stored_bytes > limits.stored_bytes:
        raise LimitReached(f"this key may have {limits.stored_bytes} bytes stored, there are {stored}; delete videos")
