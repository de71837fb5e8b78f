"""Heartbeats, the leader, and jobs that nobody is at."""

from __future__ import annotations

from shop import Shop

from consisid_gateway.jobs import characters, deliveries, lost, running, workers
from consisid_gateway.jobs.deliveries import Delivery
from consisid_gateway.jobs.queue import FACES, VIDEOS, Begun
from consisid_gateway.jobs.tables import deliveries as deliveries_table
from consisid_gateway.jobs.tables import leases
from consisid_gateway.jobs.tables import workers as workers_table


def beat(shop: Shop, worker: str, *, ready: bool = True) -> None:
    with shop.database.transaction() as connection:
        workers.beat(connection, worker, "name", ready=ready)


def test_a_worker_lives_while_it_beats(shop: Shop) -> None:
    beat(shop, "a")
    beat(shop, "a")
    beat(shop, "b", ready=False)
    with shop.database.reading() as connection:
        assert workers.alive(connection) == {"a", "b"}
        assert workers.ready(connection) == 1
    with shop.database.transaction() as connection:
        workers.leave(connection, "a")
        assert workers.alive(connection) == {"b"}
    shop.set(workers_table, beat_at=workers_table.c.beat_at - workers.STALE_SECONDS)
    with shop.database.transaction() as connection:
        assert workers.alive(connection) == set()
        workers.forget_old(connection)
    assert shop.count(workers_table) == 1


def test_nobody_is_gone_while_the_database_may_have_been_away(shop: Shop) -> None:
    def steady() -> bool:
        with shop.database.reading() as connection:
            return workers.steady(connection)

    beat(shop, "a")
    assert not steady()
    shop.set(workers_table, steady_since=workers_table.c.steady_since - workers.STALE_SECONDS)
    beat(shop, "a")
    assert steady()
    shop.set(workers_table, beat_at=workers_table.c.beat_at - 2.0)
    assert not steady()
    beat(shop, "a")
    assert not steady()


def lead(shop: Shop, process: str) -> bool:
    with shop.database.transaction() as connection:
        return workers.lead(connection, process)


def test_one_process_leads(shop: Shop) -> None:
    lead(shop, "a")
    assert [lead(shop, process) for process in "aba"] == [True, False, True]
    shop.set(leases, until=1.0)
    assert [lead(shop, process) for process in "ba"] == [True, False]
    with shop.database.transaction() as connection:
        workers.resign(connection, "a")
        workers.resign(connection, "b")
    lead(shop, "a")
    assert lead(shop, "a")


def test_whose_worker_is_gone(shop: Shop) -> None:
    beat(shop, "alive")
    own, other, ended, fresh = (shop.order().id for _ in range(4))
    with shop.database.transaction() as connection:
        running.claim(connection, own, "alive")
        running.claim(connection, other, "dead")
        epoch = running.claim(connection, ended, "dead").epoch
        running.fail(connection, running.Owner(ended, "dead", epoch), "CODE", "text", 60.0)
        begun = [
            Begun(own, VIDEOS, "alive", 60.0),
            gone := Begun(own, VIDEOS, "dead", 0.1),
            unknown := Begun(other, VIDEOS, "alive", 60.0),  # it never heard of it
            Begun(fresh, VIDEOS, "alive", 1.0),  # it may be about to claim it
            Begun(ended, VIDEOS, "alive", 60.0),
            Begun("char_1", FACES, "alive", 60.0),
        ]
        assert lost.gone(connection, begun) == [gone, unknown]
        assert lost.running(connection) == {other: False}


def test_what_the_queue_lost_goes_first_again(shop: Shop) -> None:
    waits = shop.order().id
    job = shop.order(urgent=False).id
    with shop.database.transaction() as connection:
        characters.create(connection, shop.queue, "char_1", "tenant", "name", "portrait", 3, 60.0)
    shop.queue.forget([job, "char_1"])
    assert shop.queue.waiting() == {waits}
    with shop.database.transaction() as connection:
        assert lost.waiting(connection) == ({waits: False, job: False}, ["char_1"])
        lost.put_again(connection, shop.queue, {job: False}, ["char_1"])
    assert shop.queue.waiting() == {waits, job, "char_1"}


def test_a_delivery_is_taken_by_one_and_repeated(shop: Shop) -> None:
    job = shop.order(webhook="https://example.com/hook")
    with shop.database.transaction() as connection:
        running.announce(connection, job, "body")
        taken = deliveries.take(connection, 60.0)
        assert taken == Delivery(job.id, "https://example.com/hook", "body", 0)
        assert deliveries.take(connection, 60.0) is None
        deliveries.failed(connection, taken, 0.0)
        again = deliveries.take(connection, 60.0)
        assert again is not None and again.attempts == 1
        deliveries.delivered(connection, again)
        assert deliveries.take(connection, 60.0) is None
        deliveries.forget_old(connection)
    assert shop.count(deliveries_table) == 1
    shop.set(deliveries_table, delivered_at=1.0)
    with shop.database.transaction() as connection:
        deliveries.forget_old(connection)
    assert shop.count(deliveries_table) == 0
