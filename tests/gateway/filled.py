"""Millions of jobs in a PostgreSQL, copies of one that was made as the API makes them."""

from __future__ import annotations

from collections.abc import Mapping

import sqlalchemy as sa
from shop import Shop

from consisid_gateway.jobs.job import Status
from consisid_gateway.jobs.tables import jobs

TENANTS = 100
"""Among which the jobs are spread."""


def fill(shop: Shop, number: int, status: Status, spread_seconds: float) -> None:
    """So many jobs that have, or have not, ended, each with its workflow; created one after the other until now."""
    with shop.database.engine.connect() as connection:
        begun = connection.scalar(sa.select(sa.func.count()).select_from(jobs)) or 0
    sample = shop.order().id
    id = f"'video_' || lpad(to_hex({begun} + i), 32, '0')"
    done = status is Status.COMPLETED
    age = f"({number} - i) * {spread_seconds / number}"
    row = {
        "id": id,
        "tenant": f"'tenant' || i % {TENANTS}",
        "status": f"'{status}'",
        "created_at": f"created_at - {age}",
        **({"video_bytes": "500000", "expires_at": "created_at + 604800", "done": "50"} if done else {}),
    }
    workflow = {
        "workflow_uuid": id,
        "status": "'SUCCESS'" if done else "'ENQUEUED'",
        "created_at": f"created_at - (1000.0 * {age})::bigint",
    }
    with shop.database.transaction() as connection:
        _copy(connection, None, "consisid_jobs", f"id = '{sample}'", row, number)
        _copy(connection, "dbos", "workflow_status", f"workflow_uuid = '{sample}'", workflow, number)
    with shop.database.transaction() as connection:
        connection.execute(sa.delete(jobs).where(jobs.c.id == sample))
    shop.queue.forget([sample])
    with shop.database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(sa.text("VACUUM ANALYZE"))


def _copy(
    connection: sa.Connection, schema: str | None, table: str, of: str, changed: Mapping[str, str], number: int
) -> None:
    columns = [column["name"] for column in sa.inspect(connection).get_columns(table, schema)]
    values = ", ".join(changed.get(column, f'"{column}"') for column in columns)
    names = ", ".join(f'"{column}"' for column in columns)
    place = table if schema is None else f"{schema}.{table}"
    source = f"SELECT {values} FROM {place}, generate_series(1, {number}) AS i WHERE {of}"
    connection.execute(sa.text(f"INSERT INTO {place} ({names}) {source}"))
