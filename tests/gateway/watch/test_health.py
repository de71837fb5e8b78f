"""Health of the process, readiness for jobs."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs import workers
from consisid_gateway.jobs.database import Database
from consisid_gateway.objects.store import Store
from consisid_gateway.watch import health
from consisid_gateway.watch.health import Health


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "objects"))


def ready(database: Database, store: Store) -> dict[str, Any]:
    async def run() -> dict[str, Any]:
        return (await Health(database, store).ready()).shown()

    return asyncio.run(run())


def test_it_is_ready_without_a_worker_and_says_so(database: Database, store: Store) -> None:
    assert ready(database, store) == {
        "ready": True,
        "database": True,
        "store": True,
        "workers": 0,
        "missing": ["worker"],
    }
    with database.transaction() as connection:
        workers.beat(connection, "w", "w", ready=True)
    assert ready(database, store)["missing"] == []


def test_what_is_away_is_named(database: Database, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> int:
        raise StorageUnavailable("away")

    with monkeypatch.context() as changed:
        changed.setattr(store, "size", away)
        found = ready(database, store)
        assert not found["ready"] and found["missing"] == ["store", "worker"]
    monkeypatch.setattr(workers, "ready", away)
    found = ready(database, store)
    assert not found["ready"] and found["missing"] == ["database", "worker"]


def test_any_number_of_questions_is_one(database: Database, store: Store) -> None:
    statements: list[str] = []
    sa.event.listen(database.engine, "before_cursor_execute", lambda *found: statements.append(found[2]))

    async def run() -> None:
        asked = Health(database, store)
        await asyncio.gather(*(asked.ready() for _ in range(200)))
        await asked.ready()

    asyncio.run(run())
    assert len(statements) == 1


def test_it_does_not_wait_for_what_hangs(database: Database, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "_PATIENCE_SECONDS", 0.1)
    monkeypatch.setattr(store, "size", lambda key: time.sleep(0.5) or 0)
    assert not ready(database, store)["ready"]
