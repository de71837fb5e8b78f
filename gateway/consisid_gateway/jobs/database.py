"""The engine of SQLite or PostgreSQL, its transactions and its clock."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from consisid_gateway.errors import SchemaNewer, StorageUnavailable
from consisid_gateway.jobs.tables import METADATA, SCHEMA, identity, schema_version
from consisid_runtime.errors import InvalidOption

_BUSY_MILLISECONDS = 10_000
_CONNECT_SECONDS = 5
_CONNECTIONS = 20
"""At once, of a process."""
_POSTGRESQL = {
    "connect_timeout": _CONNECT_SECONDS,
    "application_name": "consisid",
    # A server that is gone without a word, as behind a failover: by the system's defaults it would be waited for a
    # quarter of an hour where something was sent, and two hours where not.
    "tcp_user_timeout": 10_000,
    "keepalives_idle": 5,
    "keepalives_interval": 2,
    "keepalives_count": 3,
}


class now(FunctionElement[float]):
    """Seconds since 1970 by the database's clock, which all machines share."""

    type = sa.Double()
    inherit_cache = True


@compiles(now, "sqlite")
def _now_sqlite(element: now, compiler: Any, **_: Any) -> str:
    return "((julianday('now') - 2440587.5) * 86400.0)"


@compiles(now, "postgresql")
def _now_postgresql(element: now, compiler: Any, **_: Any) -> str:
    # clock_timestamp goes on within a transaction. It is volatile: an index serves a comparison with a sub-query alone,
    # which is evaluated once.
    return "(SELECT extract(epoch from clock_timestamp())::double precision)"


class Database:
    """Of one process. Thread-safe.

    Args:
        url: `sqlite:///path` or `postgresql://user@host/name`.
        pool: connections that are kept; more are made while they are needed.

    Raises `InvalidOption` for another URL.
    """

    def __init__(self, url: str | sa.URL, pool: int = 10) -> None:
        try:
            parsed = sa.make_url(url)
        except sa.exc.ArgumentError:
            parsed = None
        if parsed is None or parsed.get_backend_name() not in ("sqlite", "postgresql"):
            # The URL may contain a password.
            raise InvalidOption("a database is sqlite:///PATH or postgresql://USER@HOST/NAME")
        if parsed.get_backend_name() == "sqlite":
            self.engine = _sqlite(parsed, pool)
        else:
            self.engine = sa.create_engine(
                parsed.set(drivername="postgresql+psycopg"),
                pool_size=pool,
                max_overflow=_CONNECTIONS - pool,
                pool_pre_ping=True,
                pool_timeout=_CONNECT_SECONDS,
                hide_parameters=True,  # errors are logged, and prompts are parameters
                connect_args=_POSTGRESQL,
            )

    @property
    def embedded(self) -> bool:
        """Whether it is a file of this machine."""
        return self.engine.dialect.name == "sqlite"

    def prepare(self) -> None:
        """Create what is missing. Raises `SchemaNewer`, `StorageUnavailable`. Any number of processes may at once."""
        with self.transaction() as connection:
            if not self.embedded:
                connection.execute(sa.text("SELECT pg_advisory_xact_lock(727268)"))
            METADATA.create_all(connection)
            for index in (index for table in METADATA.tables.values() for index in table.indexes):
                index.create(connection, checkfirst=True)  # of a table that an earlier version made
            if connection.scalar(sa.select(identity.c.id)) is None:
                connection.execute(sa.insert(identity).values(id=secrets.token_hex(16), marked=False))
            found = connection.scalar(sa.select(schema_version.c.version))
            if found is None:
                connection.execute(sa.insert(schema_version).values(version=SCHEMA))
            elif found > SCHEMA:
                raise SchemaNewer(f"the database has version {found} of the schema, this is {SCHEMA}")

    @contextmanager
    def transaction(self) -> Iterator[sa.Connection]:
        """A transaction that may write. Raises `StorageUnavailable` for a database that cannot be reached, or is full.

        Constraints that are violated raise SQLAlchemy's `IntegrityError`.
        """
        ending = False
        try:
            with typed_errors(), self.engine.begin() as connection:
                if self.embedded:
                    # One that read first could not become one that writes where another has written since.
                    connection.exec_driver_sql("BEGIN IMMEDIATE")
                yield connection
                ending = True
        except StorageUnavailable as error:
            error.unsure = ending
            raise

    @contextmanager
    def reading(self) -> Iterator[sa.Connection]:
        """A transaction that does not write, and waits for none that does. Raises as `transaction`."""
        with typed_errors(), self.engine.connect() as connection:
            yield connection

    def close(self) -> None:
        self.engine.dispose()


def _sqlite(url: sa.URL, pool: int) -> sa.Engine:
    engine = sa.create_engine(
        url,
        pool_size=pool,
        max_overflow=_CONNECTIONS - pool,
        hide_parameters=True,
        connect_args={"timeout": _BUSY_MILLISECONDS / 1000},
    )

    @sa.event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = "IMMEDIATE"  # as DBOS's own engine, which shares this one
        connection.execute(f"PRAGMA busy_timeout={_BUSY_MILLISECONDS}")
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=FULL")  # an accepted job outlives a loss of power
        connection.execute("PRAGMA foreign_keys=ON")

    return engine


def insert_new(connection: sa.Connection, table: sa.Table, rows: Sequence[Mapping[str, Any]]) -> None:
    """Insert the rows whose key is not there yet."""
    if rows:
        dialect = sqlite if connection.dialect.name == "sqlite" else postgresql
        connection.execute(dialect.insert(table).on_conflict_do_nothing(), rows)


@contextmanager
def typed_errors() -> Iterator[None]:
    """Raises `StorageUnavailable` in place of SQLAlchemy's errors, but for `IntegrityError`."""
    try:
        yield
    except sa.exc.IntegrityError:
        raise
    except (sa.exc.DBAPIError, sa.exc.TimeoutError) as error:
        cause = error.__cause__ or error
        raise StorageUnavailable(f"the database does not answer, or is full: {type(cause).__name__}") from error
