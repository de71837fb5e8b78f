"""What the database tells of jobs, workers and webhooks: the same from every replica."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator, Sequence

import sqlalchemy as sa
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from consisid_gateway.errors import StorageUnavailable
from consisid_gateway.jobs import workers
from consisid_gateway.jobs.database import Database, now
from consisid_gateway.jobs.job import Status
from consisid_gateway.jobs.tables import deliveries, jobs

FRESH_SECONDS = 5.0
"""For which what was read is told again: counting every job that is stored takes its time."""

log = logging.getLogger(__name__)


class Stored(Collector):
    """Of one replica. Where the database does not answer, it tells that alone."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = threading.Lock()
        self._read: Sequence[Metric] = ()
        self._at = float("-inf")

    def describe(self) -> Iterator[Metric]:
        """Nothing, so that no database is asked when it is registered."""
        return iter(())

    def collect(self) -> Iterator[Metric]:
        with self._lock:
            if time.monotonic() - self._at > FRESH_SECONDS:
                try:
                    with self._database.reading() as connection:
                        self._read = list(_read(connection))
                except StorageUnavailable as error:
                    log.warning("metrics: %s", error)
                    self._read = ()
                self._at = time.monotonic()
            found = self._read
        up = GaugeMetricFamily("consisid_gateway_database_up", "Whether the database answers.")
        up.add_metric((), float(bool(found)))
        yield up
        yield from found


def _read(connection: sa.Connection) -> Iterator[Metric]:
    stored = GaugeMetricFamily("consisid_gateway_jobs", "Jobs that are stored.", labels=("status",))
    counts = sa.select(jobs.c.status, sa.func.count()).group_by(jobs.c.status)
    of_status: dict[str, int] = {status: count for status, count in connection.execute(counts)}
    for status in Status:
        stored.add_metric((status,), of_status.get(status, 0))
    yield stored

    waiting = GaugeMetricFamily("consisid_gateway_queue", "Jobs that wait.", labels=("priority",))
    oldest = GaugeMetricFamily(
        "consisid_gateway_queue_oldest_seconds", "That the job has waited that waits longest.", labels=("priority",)
    )
    queued = (
        sa.select(jobs.c.urgent, sa.func.count(), now() - sa.func.min(jobs.c.created_at))
        .where(jobs.c.status == Status.QUEUED)
        .group_by(jobs.c.urgent)
    )
    of_priority = {bool(urgent): (count, age) for urgent, count, age in connection.execute(queued)}
    for urgent, priority in ((False, "ordinary"), (True, "urgent")):
        count, age = of_priority.get(urgent, (0, 0.0))
        waiting.add_metric((priority,), count)
        oldest.add_metric((priority,), max(0.0, age))
    yield waiting
    yield oldest

    ready = GaugeMetricFamily("consisid_gateway_workers_ready", "Workers whose servers answer.")
    ready.add_metric((), workers.ready(connection))
    yield ready

    calls = GaugeMetricFamily("consisid_gateway_webhooks", "Webhooks of stored jobs.", labels=("state",))
    state = sa.case(
        (deliveries.c.delivered_at.is_not(None), "delivered"),
        (deliveries.c.failed_at.is_not(None), "failed"),
        else_="due",
    )
    of_state: dict[str, int] = {
        name: count for name, count in connection.execute(sa.select(state, sa.func.count()).group_by(state))
    }
    for name in ("delivered", "failed", "due"):
        calls.add_metric((name,), of_state.get(name, 0))
    yield calls
