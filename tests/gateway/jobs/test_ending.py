from __future__ import annotations

import pytest
from shop import TENANT, Shop

from consisid_gateway.errors import VideoNotFound
from consisid_gateway.jobs import ending, events, running
from consisid_gateway.jobs.job import Status, prefix_of
from consisid_gateway.jobs.running import Owner, Result
from consisid_gateway.jobs.tables import events as events_table
from consisid_gateway.jobs.tables import jobs
from consisid_runtime.events import Event


def test_a_cancelled_job_fails_and_keeps_nothing(shop: Shop) -> None:
    job = shop.order()
    with shop.database.transaction() as connection:
        ended = ending.cancel(connection, TENANT, job.id)
        assert (ended.status, ended.error_code) == (Status.FAILED, "CANCELLED")
        assert ending.cancel(connection, TENANT, job.id) == ended
        assert ending.expire(connection) == [job.id]
        assert ending.expire(connection) == []
        assert ending.orphaned(connection) == [prefix_of(job.id)]
        ending.removed(connection, prefix_of(job.id))
        assert ending.orphaned(connection) == []


def test_objects_of_nobody_are_strange(shop: Shop) -> None:
    job = shop.order()
    strays = [prefix_of(f"video_{number:032x}") for number in range(1200)]
    of_others = ["jobs/thesis/", "jobs/with a space/", "characters/video_1/", f"jobs/video_{'g' * 32}/"]
    with shop.database.reading() as connection:
        assert ending.strange(connection, [*strays, prefix_of(job.id), *of_others]) == strays


def test_what_is_written_behind_the_removal_is_strange(shop: Shop) -> None:
    job = shop.order()
    with shop.database.transaction() as connection:
        ending.cancel(connection, TENANT, job.id)
        assert ending.strange(connection, [prefix_of(job.id)]) == []
        ending.expire(connection)
        assert ending.strange(connection, [prefix_of(job.id)]) == [prefix_of(job.id)]


def test_a_video_expires_and_its_row_stays(shop: Shop) -> None:
    job = shop.order()
    with shop.database.transaction() as connection:
        owner = Owner(job.id, "a", running.claim(connection, job.id, "a").epoch)
        running.complete(connection, owner, Result("video", 3, "thumbnail", "sheet", {}), 60.0)
        assert ending.expire(connection) == []
    shop.set(jobs, expires_at=1.0)
    with shop.database.transaction() as connection:
        assert ending.expire(connection) == [job.id]
    found = shop.job(job.id)
    assert (found.status, found.video, found.video_bytes, found.thumbnail) == (Status.COMPLETED, None, 0, None)


def test_deletion_takes_everything_along(shop: Shop) -> None:
    job = shop.order()
    with shop.database.transaction() as connection:
        owner = Owner(job.id, "a", running.claim(connection, job.id, "a").epoch)
        running.report(connection, owner, [Event("denoise", 1, 4)])
        ending.delete(connection, TENANT, job.id)
        ending.orphan(connection, [prefix_of(job.id)])  # as another owner, who finds it gone
        assert ending.orphaned(connection) == [prefix_of(job.id)]
        assert ending.whole(prefix_of(job.id)) == job.id
        with pytest.raises(VideoNotFound):
            ending.delete(connection, TENANT, job.id)
    assert shop.count(events_table) == 0


def test_events_are_kept_for_ten_minutes(shop: Shop) -> None:
    job = shop.order()
    with shop.database.transaction() as connection:
        owner = Owner(job.id, "a", running.claim(connection, job.id, "a").epoch)
        running.report(connection, owner, [Event("denoise", 1, 4)])
        ended = running.fail(connection, owner, "CODE", "text", 60.0)
        events.forget_old(connection)
    assert shop.count(events_table) == 1
    assert ended.completed_at is not None
    shop.set(jobs, completed_at=ended.completed_at - 601.0)
    with shop.database.transaction() as connection:
        events.forget_old(connection)
    assert shop.count(events_table) == 0
