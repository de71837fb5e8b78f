"""What many machines would meet: a gateway and a leader with three million jobs stored, what each worker costs the
database, and a day of a thousand workers. gateway-scaling.json.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psutil
import pytest
import sqlalchemy as sa
from day import Day, simulate
from filled import TENANTS, fill
from fleet import Fleet
from ordeal import SOURCES
from postgresql import PostgreSQL, programs, wait_until
from shop import PORTRAIT, Shop, with_tables

from consisid_gateway.jobs import characters, creation, ending, lost, reading, workers
from consisid_gateway.jobs.creation import Wanted
from consisid_gateway.jobs.job import Status, new_id
from consisid_gateway.jobs.queue import POLLING_SECONDS
from consisid_gateway.jobs.tables import jobs
from consisid_gateway.objects import names
from consisid_gateway.watch import stored
from consisid_runtime import Options

pytestmark = pytest.mark.proof

STORED, WAITING = 3_000_000, 10_000
DAY_SECONDS = 86_400.0
TIMES = 50
"""That each operation is timed."""
STEPS, STEP_SECONDS, WATCHED_SECONDS = 50, 0.1, 20.0
FLEETS = ((4, POLLING_SECONDS), (4, 5.0), (8, 5.0))
"""Workers, and the seconds between two looks of each at the queue. So few that two cores suffice for all."""

Trial = Callable[[str, Callable[[], dict[str, Any]]], None]


@pytest.fixture(scope="module")
def durable() -> Iterator[PostgreSQL]:
    """One that writes what it acknowledges."""
    if programs() is None:
        pytest.skip("PostgreSQL's initdb is not installed (Debian: postgresql)")
    server = PostgreSQL(fsync="on", shared_buffers="2GB", max_wal_size="8GB")
    try:
        server.start()
        yield server
        server.stop()
    finally:
        server.remove()


@pytest.fixture
def database_url(durable: PostgreSQL) -> str:
    return with_tables(durable.database())


@pytest.fixture
def trial(proof: Callable[..., Any]) -> Trial:
    def run(name: str, work: Callable[[], dict[str, Any]]) -> None:
        found = proof("gateway-scaling", *SOURCES)
        if name not in found.trials:
            found.record(name, **work())

    return run


def milliseconds(run: Callable[[], object], times: int = TIMES) -> dict[str, float]:
    seconds = []
    for _ in range(times):
        began = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - began)
    return {"ms_median": round(1000 * statistics.median(seconds), 2), "ms_most": round(1000 * max(seconds), 2)}


class Operations:
    """What gateways, and the one leader of all workers, ask of the database."""

    def __init__(self, shop: Shop) -> None:
        self.shop, self._ids = shop, iter(self._some(shop))

    @staticmethod
    def _some(shop: Shop) -> list[tuple[str, str]]:
        with shop.database.reading() as connection:
            sample = sa.text("SELECT id, tenant FROM consisid_jobs TABLESAMPLE SYSTEM (1) LIMIT 1000")
            return [(row.id, row.tenant) for row in connection.execute(sample)]

    def _read(self, ask: Callable[[sa.Connection], object]) -> None:
        with self.shop.database.reading() as connection:
            ask(connection)

    def accept(self) -> None:
        wanted = Wanted(id := new_id("video"), "tenant1", "a prompt", Options(), names.portrait_of(id), "consisid")
        with self.shop.database.transaction() as connection:
            creation.create(connection, self.shop.queue, wanted)

    def retrieve(self) -> None:
        id, tenant = next(self._ids)
        self._read(lambda connection: reading.get(connection, tenant, id))

    def list_newest(self) -> None:
        self._read(lambda connection: reading.page(connection, "tenant2", reading.Paging()))

    def position_of_the_last(self) -> None:
        self._read(lambda connection: reading.position(connection, self._last(connection)))

    def count_a_limited_tenant(self) -> None:
        self._read(lambda connection: reading.usage(connection, "tenant3"))

    def metrics(self) -> None:
        self._read(lambda connection: list(stored._read(connection)))

    def look_for_workers_that_are_gone(self) -> None:
        begun = self.shop.queue.begun()
        self._read(lambda connection: (lost.gone(connection, begun), lost.running(connection)))

    def look_for_lost_jobs(self) -> None:
        self.shop.queue.waiting()
        self._read(lost.waiting)

    def expire(self) -> None:
        for expire in (ending.expire, characters.expire):
            with self.shop.database.transaction() as connection:
                expire(connection)

    def heartbeat(self) -> None:
        with self.shop.database.transaction() as connection:
            workers.beat(connection, "w", "w", ready=True)

    def _last(self, connection: sa.Connection) -> Any:
        newest = sa.text(
            "SELECT id, tenant FROM consisid_jobs WHERE status = 'queued' ORDER BY created_at DESC LIMIT 1"
        )
        row = connection.execute(newest).one()
        return reading.get(connection, row.tenant, row.id)


SELDOM = ("metrics", "look_for_lost_jobs")
"""Once in five seconds, and once in thirty."""
MOST = {"accept": 50.0, "retrieve": 10.0, "expire": 100.0, "look_for_workers_that_are_gone": 100.0, "heartbeat": 50.0}
"""Milliseconds in the median: the goals of an answer, and a small part of the time after which it is done again."""


def test_what_is_asked_of_a_database_with_a_days_jobs(shop: Shop, trial: Trial) -> None:
    def work() -> dict[str, Any]:
        began = time.monotonic()
        fill(shop, STORED, Status.COMPLETED, DAY_SECONDS)
        fill(shop, WAITING, Status.QUEUED, 300.0)
        operations = Operations(shop)
        with shop.database.reading() as connection:
            size = connection.scalar(sa.text("SELECT pg_database_size(current_database())"))
        figures = {
            name: milliseconds(getattr(operations, name), 5 if name in SELDOM else TIMES)
            for name in vars(Operations)
            if not name.startswith("_")
        }
        assert shop.count(jobs) == STORED + WAITING + TIMES, "all were stored, and those that were accepted"
        assert {name: figures[name] for name, most in MOST.items() if figures[name]["ms_median"] > most} == {}
        return {
            "stored": STORED,
            "waiting": WAITING,
            "tenants": TENANTS,
            "gigabytes": round((size or 0) / 1e9, 2),
            "filled_in_seconds": round(time.monotonic() - began),
            **figures,
        }

    trial("stored", work)


class Meter:
    """Processor seconds of a PostgreSQL, and its transactions."""

    def __init__(self, server: PostgreSQL, shop: Shop) -> None:
        self._process, self._shop = psutil.Process(server.process), shop
        self.begin()

    def begin(self) -> None:
        self._began, self._cpu, self._done = time.monotonic(), self._seconds(), self._transactions()

    def read(self) -> dict[str, float]:
        """A second, since `begin`."""
        cpu, done, took = self._seconds(), self._transactions(), time.monotonic() - self._began
        return {"cores": (cpu - self._cpu) / took, "transactions": (done - self._done) / took, "seconds": took}

    def connections(self) -> int:
        with self._shop.database.reading() as connection:
            counted = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()"
            return connection.scalar(sa.text(counted)) or 0

    def _seconds(self) -> float:
        own = self._process.cpu_times()
        total = own.children_user + own.children_system
        for child in self._process.children():
            try:
                times = child.cpu_times()
            except psutil.NoSuchProcess:
                continue
            total += times.user + times.system
        return total

    def _transactions(self) -> int:
        with self._shop.database.reading() as connection:
            connection.execute(sa.text("SELECT pg_stat_clear_snapshot()"))
            counted = "SELECT xact_commit + xact_rollback FROM pg_stat_database WHERE datname = current_database()"
            return connection.scalar(sa.text(counted)) or 0


@pytest.mark.parametrize(("devices", "polling_seconds"), FLEETS)
def test_what_a_worker_costs_the_database(
    devices: int,
    polling_seconds: float,
    durable: PostgreSQL,
    database_url: str,
    shop: Shop,
    trial: Trial,
    tmp_path: Path,
) -> None:
    def work() -> dict[str, Any]:
        meter = Meter(durable, shop)
        own = meter.connections()
        with Fleet(shop, database_url, tmp_path, STEP_SECONDS) as fleet:
            fleet.polling_seconds = polling_seconds
            for _ in range(devices):
                fleet.start()
            wait_until(lambda: len(fleet.ready()) == devices, 30.0)
            time.sleep(2.0)
            meter.begin()
            time.sleep(WATCHED_SECONDS)
            idle = meter.read()
            connections = (meter.connections() - own) / devices
            meter.begin()
            ids = [shop.order(portrait=PORTRAIT, steps=STEPS).id for _ in range(3 * devices)]
            wait_until(lambda: not shop.open(), 300.0)
            made = meter.read()
            assert all(job.status is Status.COMPLETED for job in shop.jobs(ids))
        seconds = made["seconds"] * (made["cores"] - idle["cores"])
        return {
            "workers": devices,
            "polling_seconds": polling_seconds,
            "connections_a_worker": round(connections, 1),
            "transactions_a_second_of_an_idle_worker": round(idle["transactions"] / devices, 1),
            "cores_of_an_idle_worker": round(idle["cores"] / devices, 4),
            "videos": len(ids),
            "steps": STEPS,
            "database_seconds_a_video": round(seconds / len(ids), 4),
        }

    trial(f"{devices} workers, {polling_seconds:g} s", work)


@pytest.mark.parametrize("wave", [0.2, 0.5])
def test_a_day_of_a_thousand_workers(wave: float, trial: Trial) -> None:
    day = Day(wave=wave)

    def work() -> dict[str, Any]:
        course = simulate(day)
        assert course.jobs == pytest.approx(day.jobs, rel=0.01)
        figures = {name: round(value, 2) for name, value in asdict(course).items()}
        return {"workers": day.workers, "wave": wave, "seconds_a_video": day.seconds_a_video, **figures}

    trial(f"a day, wave {wave:g}", work)
