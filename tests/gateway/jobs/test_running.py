"""The fence: who owns a job no longer changes nothing of it."""

from __future__ import annotations

import pytest
from shop import TENANT, Shop

from consisid_gateway.jobs import ending, events, running
from consisid_gateway.jobs.job import Status, checkpoints_of
from consisid_gateway.jobs.running import NotOwner, Owner, Result
from consisid_gateway.jobs.tables import deliveries
from consisid_runtime.events import Event

RESULT = Result("video", 3, "thumbnail", "spritesheet", {"seed": 1})


def claim(shop: Shop, job: str, worker: str) -> Owner:
    with shop.database.transaction() as connection:
        return Owner(job, worker, running.claim(connection, job, worker).epoch)


def test_a_job_is_told_of_and_published(shop: Shop) -> None:
    job = shop.order(webhook="https://example.com/")
    owner = claim(shop, job.id, "a")
    assert shop.job(job.id).status is Status.RUNNING
    with shop.database.transaction() as connection:
        running.report(connection, owner, [Event("denoise", 1, 4), Event("denoise", 2, 4, preview=b"jpeg")])
        running.report(connection, owner, [Event("denoise", 3, 4)])
        told = events.since(connection, {job.id: 1})[job.id]
        assert [(one.number, one.event.done, one.event.preview) for one in told] == [(2, 2, b"jpeg"), (3, 3, None)]
        done = running.complete(connection, owner, RESULT, 60.0)
        running.announce(connection, done, "body")
        assert ending.orphaned(connection) == [checkpoints_of(job.id)]
    assert (done.status, done.progress, done.video) == (Status.COMPLETED, 100, "video")
    assert done.completed_at is not None and done.expires_at is not None
    assert 59.0 < done.expires_at - done.completed_at < 61.0
    assert shop.count(deliveries) == 1


@pytest.mark.parametrize("how", ["taken over", "taken over by itself", "cancelled", "deleted", "completed"])
def test_a_former_owner_changes_nothing(shop: Shop, how: str) -> None:
    job = shop.order()
    owner = claim(shop, job.id, "a")
    if how.startswith("taken over"):
        claim(shop, job.id, "a" if how.endswith("itself") else "b")
    else:
        with shop.database.transaction() as connection:
            if how == "completed":
                running.complete(connection, owner, RESULT, 60.0)
            else:
                (ending.cancel if how == "cancelled" else ending.delete)(connection, TENANT, job.id)
    for statement in (
        lambda connection: running.check(connection, owner),
        lambda connection: running.report(connection, owner, [Event("denoise", 1, 4)]),
        lambda connection: running.keep_checkpoint(connection, owner, "key"),
        lambda connection: running.checkpoint_of(connection, owner),
        lambda connection: running.count_attempt(connection, owner),
        lambda connection: running.complete(connection, owner, RESULT, 60.0),
        lambda connection: running.fail(connection, owner, "CODE", "text", 60.0),
    ):
        with pytest.raises(NotOwner), shop.database.transaction() as connection:
            statement(connection)
    with shop.database.reading() as connection:
        assert events.since(connection, {job.id: 0}) == {}
        assert running.ended(connection, job.id) == (not how.startswith("taken over"))
        assert running.unwanted(connection, job.id) == (how in ("cancelled", "deleted"))


def test_a_job_that_has_ended_is_claimed_by_nobody(shop: Shop) -> None:
    job = shop.order()
    owner = claim(shop, job.id, "a")
    with shop.database.transaction() as connection:
        running.fail(connection, owner, "CODE", "text", 60.0)
    with pytest.raises(NotOwner):
        claim(shop, job.id, "b")
    assert shop.job(job.id).error_code == "CODE"


def test_ends_of_the_server_count_from_the_last_checkpoint(shop: Shop) -> None:
    job = shop.order()
    owner = claim(shop, job.id, "a")
    with shop.database.transaction() as connection:
        assert [running.count_attempt(connection, owner) for _ in range(2)] == [1, 2]
        assert running.keep_checkpoint(connection, owner, "one") is None
        assert running.keep_checkpoint(connection, owner, "two") == "one"
        assert running.checkpoint_of(connection, owner) == "two"
        assert running.count_attempt(connection, owner) == 1
