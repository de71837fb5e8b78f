"""Databases of both kinds, and a folder of objects."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from postgresql import PostgreSQL, programs
from shop import Shop, with_tables

from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.queue import Queue
from consisid_gateway.objects.store import Store


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A database with all tables: a copy is made sooner than they are."""
    file = tmp_path_factory.mktemp("sqlite") / "template"
    with_tables(f"sqlite:///{file}")
    return file


@pytest.fixture(scope="session")
def postgresql() -> Iterator[PostgreSQL]:
    """A server that answers. A test that ends it starts it again."""
    if programs() is None:
        pytest.skip("PostgreSQL's initdb is not installed (Debian: postgresql)")
    server = PostgreSQL()
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()


@pytest.fixture(scope="session")
def postgresql_template(postgresql: PostgreSQL) -> str:
    """The name of a database with all tables."""
    return with_tables(postgresql.database()).rpartition("/")[2]


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A database without jobs, of SQLite and of PostgreSQL."""
    if request.param == "sqlite":
        shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "database")
        return f"sqlite:///{tmp_path / 'database'}"
    server: PostgreSQL = request.getfixturevalue("postgresql")
    return server.database(request.getfixturevalue("postgresql_template"))


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = Database(database_url)
    yield opened
    opened.close()


@pytest.fixture
def queue(database: Database) -> Iterator[Queue]:
    opened = Queue(database)
    yield opened
    opened.close()


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(str(tmp_path / "objects"))


@pytest.fixture
def shop(database: Database, queue: Queue, store: Store, tmp_path: Path) -> Shop:
    return Shop(database, queue, store, tmp_path / "objects")
