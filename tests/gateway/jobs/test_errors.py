"""Errors of a database have nothing of what people wrote, and come in time."""

from __future__ import annotations

import asyncio
import os
import socket
import time

import pytest
import sqlalchemy as sa
from shop import Shop

from consisid_gateway.api.threads import in_time
from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.tables import jobs


def test_no_prompt_is_in_an_error(shop: Shop) -> None:
    order = shop.order("a secret prompt")
    values = {"id": order.id, "tenant": "t", "status": "queued", "urgent": False, "model": "m", "created_at": 0.0}
    again = sa.insert(jobs).values(**values, prompt="a secret prompt", options="{}", portrait="p")
    with pytest.raises(sa.exc.IntegrityError) as violated, shop.database.transaction() as connection:
        connection.execute(again)
    with pytest.raises(StorageUnavailable) as failed, shop.database.transaction() as connection:
        connection.execute(sa.text("SELECT nothing FROM nowhere WHERE x = :x"), {"x": "a secret prompt"})
    for error in (violated.value, failed.value, failed.value.__cause__):
        assert "secret" not in str(error)


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_a_server_that_went_without_a_word_is_given_up(database: Database) -> None:
    with database.reading() as connection:
        opened = socket.socket(fileno=os.dup(connection.connection.dbapi_connection.fileno()))  # type: ignore[union-attr]
        with opened:
            assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 10_000
            assert opened.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 5


def test_a_transaction_that_does_not_end_is_a_typed_error() -> None:
    with pytest.raises(StorageUnavailable, match=r"within 0\.05 s") as caught:
        asyncio.run(in_time(lambda: time.sleep(1), 0.05))
    assert caught.value.unsure
