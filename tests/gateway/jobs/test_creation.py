"""Creation and reading of jobs."""

from __future__ import annotations

from typing import Any

import pytest
import sqlalchemy as sa
from shop import TENANT, Shop

from consisid_gateway.errors import IdempotencyConflict, VideoNotFound
from consisid_gateway.jobs import creation, reading
from consisid_gateway.jobs.reading import Paging
from consisid_gateway.jobs.tables import idempotency, jobs
from consisid_runtime import Options


def test_a_job_is_there_with_its_place_in_the_queue(shop: Shop) -> None:
    made = shop.order(options=Options(seed=3), urgent=True, trace="00-trace")
    assert shop.job(made.id) == made
    assert (made.request, made.urgent, made.trace, made.progress) == (Options(seed=3), True, "00-trace", 0)
    assert shop.queue.waiting() == {made.id}
    with shop.database.reading() as connection, pytest.raises(VideoNotFound):
        reading.get(connection, "another", made.id)


def test_neither_job_nor_place_where_the_transaction_fails(shop: Shop) -> None:
    wanted = creation.Wanted("video_1", TENANT, "prompt", Options(), "key", "consisid")
    with pytest.raises(RuntimeError), shop.database.transaction() as connection:
        creation.create(connection, shop.queue, wanted)
        raise RuntimeError
    assert shop.count(jobs) == 0
    assert shop.queue.waiting() == set()


def test_an_idempotency_key_stands_for_one_job_for_a_day(shop: Shop) -> None:
    made = shop.order(key="key", digest="digest")
    assert shop.order(key="key", digest="digest").id == made.id
    with pytest.raises(IdempotencyConflict):
        shop.order(key="key", digest="another")
    with shop.database.transaction() as connection:
        creation.forget_old_keys(connection)
    assert shop.count(idempotency) == 1
    shop.set(idempotency, created_at=made.created_at - 86401.0)
    with shop.database.transaction() as connection:
        creation.forget_old_keys(connection)
    assert shop.order(key="key", digest="another").id != made.id


def test_pages_and_positions(shop: Shop) -> None:
    made = [shop.order().id for _ in range(3)]
    urgent = shop.order(urgent=True).id
    with shop.database.reading() as connection:
        first = reading.page(connection, TENANT, Paging(limit=2))
        assert [job.id for job in first.rows] == [urgent, made[2]]
        assert first.has_more
        last = reading.page(connection, TENANT, Paging(made[2], 2))
        assert [job.id for job in last.rows] == [made[1], made[0]]
        assert not last.has_more
        ahead = reading.page(connection, TENANT, Paging(made[0], 9, "asc"))
        assert [job.id for job in ahead.rows] == [*made[1:], urgent]
        assert [reading.position(connection, shop.job(id)) for id in (urgent, *made)] == [0, 1, 2, 3]
        assert reading.usage(connection, TENANT) == (4, 0)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_what_a_tenant_has_is_read_from_indices_alone(shop: Shop) -> None:
    """A limited key's every POST asks, and a tenant may have stored tens of thousands."""
    asked: list[tuple[str, Any]] = []
    sa.event.listen(shop.database.engine, "before_cursor_execute", lambda *call: asked.append(call[2:4]))
    with shop.database.reading() as connection:
        reading.usage(connection, TENANT)
        of_jobs = [(statement, values) for statement, values in asked if f"FROM {jobs.name}" in statement]
        assert len(of_jobs) == 2
        for statement, values in of_jobs:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", values).all()
            assert all("USING COVERING INDEX" in step.detail for step in plan), plan


def test_an_index_that_an_earlier_version_lacked_is_made(shop: Shop) -> None:
    with shop.database.transaction() as connection:
        connection.execute(sa.text("DROP INDEX consisid_jobs_stored"))
    for _ in range(2):
        shop.database.prepare()
    found = {index["name"] for index in sa.inspect(shop.database.engine).get_indexes(jobs.name)}
    assert found == {index.name for index in jobs.indexes}
