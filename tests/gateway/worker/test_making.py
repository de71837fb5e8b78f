"""One job, from its claim to its end, with a simulated maker."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from postgresql import wait_until
from shop import PORTRAIT, TENANT, Shop
from simulated import SimulatedMaker, SimulatedMaking, expected

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs import ending, events, running
from consisid_gateway.jobs.job import Job, Status, checkpoints_of
from consisid_gateway.jobs.running import NotOwner
from consisid_gateway.jobs.tables import deliveries, jobs, orphans
from consisid_gateway.worker.making import MOST_ATTEMPTS, MOST_OWNERS, Workbench
from consisid_gateway.worker.patience import Ending, Patience
from consisid_runtime import Options
from consisid_runtime.errors import (
    Busy,
    CheckpointRefused,
    NoFace,
    ServerDied,
    ServerError,
    ServerUnreachable,
    Unauthenticated,
)

pytestmark = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)

STEPS = 20
SLOW = 0.02
"""Seconds of a step of a video that is to be disturbed."""


def bench(shop: Shop, maker: SimulatedMaker, worker: str = "a", ending: threading.Event | None = None) -> Workbench:
    patience = Patience(ending or threading.Event())
    return Workbench(shop.database, shop.store, maker, worker, 60.0, lambda job: job.status, patience)


def once(error: Exception, step: int = 10) -> Callable[[str, int], None]:
    """Raises the error in the first attempt at a step."""
    left = [error]

    def fault(prompt: str, at: int) -> None:
        if at == step and left:
            raise left.pop()

    return fault


def assert_made(shop: Shop, job: Job) -> None:
    assert (job.status, job.error_code) == (Status.COMPLETED, None)
    assert job.video is not None and job.thumbnail is not None and job.spritesheet is not None
    video = expected(PORTRAIT, job.prompt, Options(steps=STEPS))
    assert shop.store.get(job.video) == video.mp4
    assert job.info == video.info
    assert job.video_bytes == len(video.mp4)
    assert shop.store.get(job.thumbnail)[:3] == shop.store.get(job.spritesheet)[:3] == b"\xff\xd8\xff"


def test_a_job_is_made_and_told_of(shop: Shop) -> None:
    job, maker = shop.order(webhook="https://example.com/", trace="of the request"), SimulatedMaker()
    bench(shop, maker).make(job.id)
    assert_made(shop, shop.job(job.id))
    assert maker.traces == ["of the request"]
    with shop.database.reading() as connection:
        told = [one.event for one in events.since(connection, {job.id: 0})[job.id]]
        assert ending.orphaned(connection) == [checkpoints_of(job.id)]
    assert [event.stage for event in (told[0], told[-1])] == ["face", "decode"]
    assert [event.done for event in told if event.stage == "denoise"] == [0, 5, 10, 15, 20]
    assert shop.count(deliveries) == 1


def test_of_a_job_that_has_ended_nothing_is_made(shop: Shop) -> None:
    job = shop.order()
    with shop.database.transaction() as connection:
        ending.delete(connection, TENANT, job.id)
    maker = SimulatedMaker()
    bench(shop, maker).make(job.id)
    assert maker.traces == [], "nothing was asked for"


@pytest.mark.parametrize(
    "error",
    [ServerDied("died"), ServerUnreachable("away"), Busy("full", retry_after=0.3)],
    ids=lambda error: type(error).__name__,
)
def test_a_server_that_is_away_is_asked_again_from_the_last_checkpoint(
    shop: Shop, tmp_path: Path, error: Exception
) -> None:
    job = shop.order()
    log = tmp_path / "log"
    bench(shop, SimulatedMaker(0.01, log=log, fault=once(error))).make(job.id)
    assert_made(shop, shop.job(job.id))
    parts = [line.split()[1:] for line in log.read_text().splitlines()]
    assert parts == [["0", "5"], ["5", "10"], ["10", "15"], ["15", "20"]]


def test_a_video_that_ends_every_server_fails(shop: Shop) -> None:
    asked = []

    def fault(prompt: str, step: int) -> None:
        asked.append(step)
        raise ServerDied("died")

    job = shop.order(webhook="https://example.com/")
    bench(shop, SimulatedMaker(fault=fault)).make(job.id)
    found = shop.job(job.id)
    assert (found.status, found.error_code, len(asked)) == (Status.FAILED, "SERVER_DIED", MOST_ATTEMPTS)
    assert shop.count(deliveries) == 1


def test_a_job_that_ended_many_workers_fails(shop: Shop) -> None:
    """Each of them was killed, as where a video takes more memory than there is: none could count it."""
    asked: list[int] = []
    job = shop.order(webhook="https://example.com/")
    shop.set(jobs, epoch=MOST_OWNERS)
    bench(shop, SimulatedMaker(fault=lambda prompt, step: asked.append(step))).make(job.id)
    found = shop.job(job.id)
    assert (found.status, found.error_code, asked) == (Status.FAILED, "SERVER_DIED", [])
    assert shop.count(deliveries) == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [(NoFace("no face"), "NO_FACE"), (ServerError("failed"), "SERVER_ERROR"), (KeyError("a bug"), "INTERNAL")],
)
def test_what_another_attempt_would_meet_again_ends_the_job(shop: Shop, error: Exception, code: str) -> None:
    job = shop.order()
    bench(shop, SimulatedMaker(fault=once(error))).make(job.id)
    found = shop.job(job.id)
    assert (found.status, found.error_code) == (Status.FAILED, code)
    assert "a bug" not in (found.error_message or "")


def test_a_checkpoint_of_another_bundle_is_left_out(shop: Shop) -> None:
    class Another(SimulatedMaker):
        def make(self, *args: Any, checkpoint: bytes | None, **more: Any) -> SimulatedMaking:
            if checkpoint is not None:
                raise CheckpointRefused("another bundle")
            return super().make(*args, checkpoint=None, **more)

    job = shop.order()
    bench(shop, Another(0.01, fault=once(ServerDied("died")))).make(job.id)
    assert_made(shop, shop.job(job.id))


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor() as threads:
        yield threads


def begun(shop: Shop, pool: ThreadPoolExecutor, job: str, worker: Workbench, step: int = 5) -> Future[None]:
    """The making of a job that has come to a step."""
    made = pool.submit(worker.make, job)
    wait_until(lambda: made.done() or shop.job(job).done >= step, 5.0)
    return made


def test_a_job_that_is_taken_over_is_left_at_once(shop: Shop, pool: ThreadPoolExecutor, tmp_path: Path) -> None:
    job = shop.order()
    former = begun(shop, pool, job.id, bench(shop, SimulatedMaker(SLOW, log=tmp_path / "former"), "a"))
    wait_until(lambda: shop.job(job.id).checkpoint is not None, 2.0)
    bench(shop, SimulatedMaker(SLOW), "b").make(job.id)
    with pytest.raises(NotOwner):
        former.result(1.0)
    assert_made(shop, shop.job(job.id))
    assert "15 20" not in (tmp_path / "former").read_text()


@pytest.mark.parametrize("how", [ending.cancel, ending.delete], ids=["cancel", "delete"])
def test_a_job_that_nobody_wants_is_left_at_once(shop: Shop, pool: ThreadPoolExecutor, how: Callable[..., Any]) -> None:
    job = shop.order()
    made = begun(shop, pool, job.id, bench(shop, SimulatedMaker(0.2)), step=0)
    with shop.database.transaction() as connection:
        how(connection, TENANT, job.id)
    assert made.result(1.0) is None
    assert list(shop.store_folder.glob("jobs/*/*.mp4")) == []


def test_what_is_published_too_late_is_removed(shop: Shop) -> None:
    job = shop.order()

    class Late(SimulatedMaker):
        def make(self, *args: Any, **more: Any) -> Any:
            *_, video = super().make(*args, **more)
            with shop.database.transaction() as connection:
                ending.delete(connection, TENANT, job.id)
                connection.execute(orphans.delete())  # its objects were removed, and these are not there yet
            return Made(video)

    class Made(list[Any]):
        def __init__(self, video: object) -> None:
            super().__init__([video])

        def cancel(self) -> None: ...

    bench(shop, Late()).make(job.id)
    with shop.database.reading() as connection:
        assert ending.orphaned(connection) == [f"jobs/{job.id}/"]


def test_a_worker_that_ends_leaves_its_job(shop: Shop, pool: ThreadPoolExecutor) -> None:
    job, over = shop.order(), threading.Event()
    made = begun(shop, pool, job.id, bench(shop, SimulatedMaker(SLOW), ending=over))
    over.set()
    with pytest.raises(Ending):
        made.result(1.0)
    assert shop.job(job.id).status is Status.RUNNING
    bench(shop, SimulatedMaker(), "b").make(job.id)
    assert_made(shop, shop.job(job.id))


def test_a_store_that_is_away_delays_the_end_only(
    shop: Shop, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.order()
    made = begun(shop, pool, job.id, bench(shop, SimulatedMaker(SLOW)))
    put, away, asked = shop.store.put, threading.Event(), threading.Event()
    away.set()

    def fail(key: str, content: bytes) -> None:
        asked.set()
        if away.is_set():
            raise StorageUnavailable("full")
        put(key, content)

    monkeypatch.setattr(shop.store, "put", fail)
    assert asked.wait(5.0)
    wait_until(lambda: shop.job(job.id).stage == "decode", 5.0)
    assert not made.done()
    away.clear()
    made.result(5.0)
    assert_made(shop, shop.job(job.id))


def test_a_database_that_is_away_delays_the_end_only(
    shop: Shop, pool: ThreadPoolExecutor, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = shop.order()
    made = begun(shop, pool, job.id, bench(shop, SimulatedMaker(SLOW)))
    away = threading.Event()
    away.set()
    report, complete = running.report, running.complete

    def failing(statement: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any) -> Any:
            if away.is_set():
                raise StorageUnavailable("away")
            return statement(*args)

        return call

    monkeypatch.setattr(running, "report", failing(report))
    monkeypatch.setattr(running, "complete", failing(complete))
    with pytest.raises(TimeoutError):
        made.result(1.0)
    away.clear()
    made.result(5.0)
    assert_made(shop, shop.job(job.id))
    with shop.database.reading() as connection:
        numbers = [one.number for one in events.since(connection, {job.id: 0})[job.id]]
    assert numbers == sorted(set(numbers))


def test_a_worker_without_the_servers_token_fails_no_job(shop: Shop) -> None:
    job = shop.order()
    bench(shop, SimulatedMaker(fault=once(Unauthenticated("this server wants a token")))).make(job.id)
    assert_made(shop, shop.job(job.id))
