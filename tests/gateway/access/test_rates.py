"""Requests a minute of a key, over all replicas."""

from __future__ import annotations

import asyncio

import pytest
import sqlalchemy as sa

from consisid_gateway.access import rates
from consisid_gateway.access.caller import Caller, Limits
from consisid_gateway.access.rates import Rates
from consisid_gateway.errors import LimitReached
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.tables import windows

ADA = Caller("ada", "key_ada", limits=Limits(requests_per_minute=5))


@pytest.fixture
def database(either: Database) -> Database:
    return either


@pytest.fixture(autouse=True)
def whole_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """No minute ends within a test."""
    monkeypatch.setattr(rates, "MINUTE", 10**9)


async def passes(counter: Rates, caller: Caller, requests: int) -> int:
    passed = 0
    for _ in range(requests):
        try:
            await counter.count(caller)
            passed += 1
        except LimitReached as error:
            assert error.retry_after is not None and error.retry_after >= 1
    return passed


def test_so_many_pass(database: Database) -> None:
    assert asyncio.run(passes(Rates(database), ADA, 9)) == 5


def test_without_a_limit_nothing_is_counted(database: Database) -> None:
    for caller in (Caller(), Caller("ada", "key_1")):
        assert asyncio.run(passes(Rates(database), caller, 50)) == 50
    with database.reading() as connection:
        assert connection.scalar(sa.select(sa.func.count()).select_from(windows)) == 0


def test_replicas_share_it(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_SHARED_SECONDS", 0.0)

    async def run() -> int:
        one, other = Rates(database), Rates(database)
        return sum([await passes(each, ADA, 1) for each in (one, other) * 6])

    assert asyncio.run(run()) == 5


def test_the_database_is_written_once_a_second(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rates, "_SHARED_SECONDS", 60.0)
    many = Caller("ada", "key_ada", limits=Limits(requests_per_minute=1000))
    written: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *found: written.append(found[2]))
    assert asyncio.run(passes(Rates(database), many, 200)) == 200
    assert len([statement for statement in written if statement.startswith("INSERT")]) == 1


def test_many_at_once_are_all_counted(database: Database) -> None:
    async def run() -> list[BaseException | None]:
        counter = Rates(database)
        return await asyncio.gather(*(counter.count(ADA) for _ in range(40)), return_exceptions=True)

    found = asyncio.run(run())
    assert sum(error is None for error in found) == 5
    assert all(error is None or isinstance(error, LimitReached) for error in found)


def test_each_minute_begins_anew_and_old_ones_are_deleted(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    with database.transaction() as connection:
        connection.execute(sa.insert(windows).values(key=ADA.key, window=0, requests=5))
        connection.execute(sa.insert(windows).values(key="key_other", window=0, requests=5))
    assert asyncio.run(passes(Rates(database), ADA, 9)) == 5
    with database.reading() as connection:
        assert {tuple(row) for row in connection.execute(sa.select(windows.c.key, windows.c.window))} == {
            ("key_ada", 1),
            ("key_other", 0),
        }
