"""The worker as a whole, in this process: queues, readiness, faces, removal, its end."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import sqlalchemy as sa
from dbos import DBOS
from postgresql import wait_until
from shop import TENANT, Shop
from simulated import FACELESS, SimulatedMaker

from consisid_gateway.errors import SchemaNewer, StorageUnavailable
from consisid_gateway.jobs import characters, ending, queue, workers
from consisid_gateway.jobs.characters import Reading
from consisid_gateway.jobs.job import Status, new_id, prefix_of
from consisid_gateway.jobs.tables import SCHEMA, orphans, schema_version
from consisid_gateway.jobs.tables import workers as workers_table
from consisid_gateway.objects import names
from consisid_gateway.objects.store import Store
from consisid_gateway.worker.faces import FaceReader
from consisid_gateway.worker.making import MOST_ATTEMPTS, Workbench
from consisid_gateway.worker.patience import Patience
from consisid_gateway.worker.worker import Worker, WorkerConfig
from consisid_runtime import Options
from consisid_runtime.errors import ServerDied, ServerUnreachable

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
Start = Callable[..., Worker]


@pytest.fixture
def start(shop: Shop) -> Iterator[Start]:
    """A worker of a simulated maker; stopped behind the test."""
    started: list[Worker] = []

    def run(maker: SimulatedMaker, **settings: float) -> Worker:
        given = WorkerConfig(**settings)
        worker = Worker(shop.database, shop.store, maker, lambda job: job.status, given, "tested")
        worker.start()
        started.append(worker)
        return worker

    yield run
    for worker in started:
        worker.stop()


def completed(shop: Shop, *ids: str) -> Callable[[], bool]:
    return lambda: all(job.status is Status.COMPLETED for job in shop.jobs(ids))


def test_jobs_and_faces_are_taken_as_soon_as_they_are_there(shop: Shop, start: Start) -> None:
    worker = start(SimulatedMaker())
    wait_until(lambda: shop.count(workers_table), 5.0)
    time.sleep(0.5)  # its queues are being watched
    began = time.monotonic()
    job, urgent = shop.order().id, shop.order(urgent=True).id
    faces = {}
    for portrait in (b"portrait", FACELESS):
        id = new_id("char")
        key = names.portrait_of_character(id)
        shop.store.put(key, portrait)
        with shop.database.transaction() as connection:
            faces[portrait] = characters.create(connection, shop.queue, id, TENANT, "name", key, len(portrait), 60.0).id
    wait_until(completed(shop, job, urgent), 5.0)
    assert time.monotonic() - began < 2.0

    def face(portrait: bytes) -> characters.Character:
        with shop.database.reading() as connection:
            return characters.get(connection, TENANT, faces[portrait])

    wait_until(lambda: face(b"portrait").status is Reading.READY, 5.0)
    wait_until(lambda: face(FACELESS).error_code == "NO_FACE", 5.0)
    assert face(b"portrait").face == {"faces_seen": 1, "box": [0, 0, 8, 8]}
    assert face(FACELESS).status is Reading.REFUSED
    worker.stop()
    assert shop.count(workers_table) == 0
    wait_until(lambda: not shop.queue.waiting(), 1.0)


@ON_SQLITE
def test_a_portrait_that_ends_the_server_is_given_up(shop: Shop) -> None:
    calls: list[bytes] = []

    class Fragile(SimulatedMaker):
        def identify(self, portrait: bytes, options: Options) -> Mapping[str, Any]:
            calls.append(portrait)
            raise ServerDied("the server ended")

    patience = Patience(threading.Event())
    bench = Workbench(shop.database, shop.store, Fragile(), "a", 60.0, lambda job: job.status, patience)
    id = new_id("char")
    key = names.portrait_of_character(id)
    shop.store.put(key, b"portrait")
    with shop.database.transaction() as connection:
        characters.create(connection, shop.queue, id, TENANT, "name", key, 8, 60.0)
    FaceReader(bench).read(id)
    with shop.database.reading() as connection:
        found = characters.get(connection, TENANT, id)
    assert (found.status, found.error_code, len(calls)) == (Reading.REFUSED, "SERVER_DIED", MOST_ATTEMPTS)


@ON_SQLITE
def test_a_character_that_is_deleted_is_read_no_longer(shop: Shop) -> None:
    id = new_id("char")
    key = names.portrait_of_character(id)

    class Busy(SimulatedMaker):
        def identify(self, portrait: bytes, options: Options) -> Mapping[str, Any]:
            with shop.database.transaction() as connection:
                characters.delete(connection, TENANT, id)
            raise ServerUnreachable("no server")

    patience = Patience(threading.Event())
    bench = Workbench(shop.database, shop.store, Busy(), "a", 60.0, lambda job: job.status, patience)
    shop.store.put(key, b"portrait")
    with shop.database.transaction() as connection:
        characters.create(connection, shop.queue, id, TENANT, "name", key, 8, 60.0)
    FaceReader(bench).read(id)


@ON_SQLITE
def test_no_job_is_taken_until_the_server_is_ready(shop: Shop, start: Start) -> None:
    maker = SimulatedMaker()
    maker.is_ready = False
    job = shop.order().id
    start(maker)
    time.sleep(1.0)
    assert shop.job(job).status is Status.QUEUED
    assert shop.count(workers_table) == 0
    maker.is_ready = True
    wait_until(completed(shop, job), 5.0)


@ON_SQLITE
def test_a_server_that_stays_away_loses_its_job_to_others(shop: Shop, start: Start) -> None:
    def fault(prompt: str, step: int) -> None:
        if step == 10:
            maker.is_ready = False
        if not maker.is_ready:
            raise ServerUnreachable("away")

    maker = SimulatedMaker(0.02, fault=fault)
    job = shop.order().id
    start(maker, unready_seconds=0.5)
    wait_until(lambda: not maker.is_ready, 5.0)
    wait_until(lambda: shop.count(workers_table) == 0, 5.0)
    assert shop.job(job).status is Status.RUNNING
    maker.fault = lambda prompt, step: None
    maker.is_ready = True
    wait_until(completed(shop, job), 8.0)
    assert shop.job(job).epoch == 2


@ON_SQLITE
def test_objects_of_what_is_over_are_removed(shop: Shop, start: Start) -> None:
    made, deleted = shop.order(), shop.order()
    with shop.database.transaction() as connection:
        ending.delete(connection, TENANT, deleted.id)
    start(SimulatedMaker(), kept_seconds=1.0)
    wait_until(completed(shop, made.id), 5.0)
    video = shop.job(made.id).video
    assert video is not None and shop.store.size(video)
    folder = shop.store_folder
    wait_until(lambda: not [file for _, _, files in os.walk(folder) for file in files], 8.0)
    wait_until(lambda: shop.count(orphans) == 0, 2.0)
    assert shop.job(made.id).video is None
    assert shop.queue.waiting() == set()


def test_all_workers_look_at_the_queue_as_often_as_the_last_that_was_started_says(shop: Shop, start: Start) -> None:
    def polling() -> dict[str, float]:
        with shop.database.reading() as connection:
            table = "queues" if shop.database.embedded else "dbos.queues"
            rows = connection.execute(sa.text(f"SELECT name, polling_interval_sec FROM {table}"))
            return {row.name: row.polling_interval_sec for row in rows}

    wanted = {queue.VIDEOS: 3.0, queue.URGENT: 2.0, queue.FACES: 3.0}
    start(SimulatedMaker(), polling_seconds=3.0)
    wait_until(lambda: polling() == wanted, 5.0)
    shop.queue.prepare()
    assert polling() == wanted, "a gateway changed it"


@ON_SQLITE
def test_what_cannot_be_deleted_keeps_nothing_else(shop: Shop, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    kept, *others = (shop.order().id for _ in range(3))
    with shop.database.transaction() as connection:
        for job in (kept, *others):
            ending.delete(connection, TENANT, job)
    delete_all = Store.delete_all

    def refused(store: Store, prefix: str) -> None:
        if prefix == prefix_of(kept):
            raise StorageUnavailable("not permitted")
        delete_all(store, prefix)

    monkeypatch.setattr(Store, "delete_all", refused)
    start(SimulatedMaker())
    wait_until(lambda: shop.count(orphans) == 1, 5.0)
    monkeypatch.undo()
    wait_until(lambda: shop.count(orphans) == 0, 5.0)


def test_a_worker_that_is_told_to_end_leaves_its_job_to_the_next(shop: Shop, start: Start) -> None:
    job = shop.order(steps=400).id
    worker = start(SimulatedMaker(0.01))
    wait_until(lambda: shop.job(job).done >= 5, 5.0)
    began = time.monotonic()
    worker.stop()
    assert time.monotonic() - began < 3.0
    with shop.database.reading() as connection:
        assert workers.alive(connection) == set()
    left = shop.job(job)
    assert left.status is Status.RUNNING and left.done < 400
    start(SimulatedMaker())
    wait_until(completed(shop, job), 8.0)


@ON_SQLITE
def test_a_release_with_another_format_goes_on_with_the_jobs(
    shop: Shop, start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = shop.order(steps=400).id
    worker = start(SimulatedMaker(0.01))
    wait_until(lambda: shop.job(begun).checkpoint, 5.0)
    worker.stop()
    waits = shop.order().id
    monkeypatch.setattr(queue, "FORMAT", "2")
    assert shop.queue.waiting() == {begun}
    start(SimulatedMaker())
    wait_until(completed(shop, begun, waits), 10.0)


@ON_SQLITE
def test_a_database_that_goes_away_at_the_start(shop: Shop, start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    launch, failures = DBOS.launch, [sa.exc.OperationalError("", {}, Exception("away"))]

    def fail_once() -> None:
        launch()
        if failures:
            raise failures.pop()

    monkeypatch.setattr(DBOS, "launch", fail_once)
    job = shop.order().id
    start(SimulatedMaker())
    wait_until(completed(shop, job), 10.0)
    assert not failures


@ON_SQLITE
def test_a_database_of_a_later_version_ends_it(shop: Shop, start: Start) -> None:
    shop.set(schema_version, version=SCHEMA + 1)
    worker = start(SimulatedMaker())
    with pytest.raises(SchemaNewer):
        worker.wait()
