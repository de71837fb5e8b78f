"""The tables of what many machines ask of the database, from the records of `gateway-…`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from consisid_measurement.proof import FOLDER, Proof
from generators.markdown import table

_RECORDS = Path(__file__).parents[2] / "benchmarks" / "results" / FOLDER
_OPERATIONS = {
    "accept": "accept a job",
    "retrieve": "retrieve a video",
    "list_newest": "list a tenant's newest twenty",
    "position_of_the_last": "the position of the job that waits last",
    "count_a_limited_tenant": "jobs and bytes of a tenant whose key has limits",
    "heartbeat": "heartbeat of a worker",
    "look_for_workers_that_are_gone": "look for workers that are gone",
    "look_for_lost_jobs": "compare queue and jobs",
    "expire": "look for what has expired",
    "metrics": "metrics",
}
_REQUESTS = {"post": "create", "retrieve": "retrieve", "list": "list twenty"}
_DATABASES = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}
_DAY_SECONDS, _DAY = 86_400, "a day"
"""And how the names of its trials begin."""


def operation_table() -> str:
    """Markdown: a row for each operation with a day's jobs stored."""
    found = _trials()["stored"]
    rows = [
        [name, *(f"{found[key][column]:g}" for column in ("ms_median", "ms_most"))] for key, name in _OPERATIONS.items()
    ]
    return table(["operation", "ms, median", "ms, most"], rows)


def load_table() -> str:
    """Markdown: a row for each database that one gateway answered from; milliseconds, the median and 99 of 100."""
    return table(
        ["database", *_REQUESTS.values(), "cores of the gateway"], [_load_row(*pair) for pair in _DATABASES.items()]
    )


def _load_row(database: str, shown: str) -> list[str]:
    trial = _trials("gateway-load")[database]
    times = [f"{trial[kind]['ms_median']:g} – {trial[kind]['ms_p99']:g} ms" for kind in _REQUESTS]
    return [shown, *times, f"{trial['cores_of_the_gateway']:g}"]


def device_table() -> str:
    """Markdown: a row for each database that four devices took their jobs from."""
    head = [
        "database",
        "as much as one device",
        "longer than the best order",
        "urgent: seconds to a worker, at most",
        "to the end of its first step, at most",
    ]
    return table(head, [_device_row(database, shown) for database, shown in _DATABASES.items()])


def _device_row(database: str, shown: str) -> list[str]:
    trials = _trials("gateway-rates")
    four, urgent = trials[f"{database} four devices"], trials[f"{database} urgent"]
    return [
        shown,
        f"{four['ratio']:.2f} ×",
        f"{100 * four['over_the_best_order']:.1f} %",
        f"{urgent['slowest_claim_seconds']:g}",
        f"{urgent['slowest_first_part_seconds']:g}",
    ]


def worker_table() -> str:
    """Markdown: a row for each number of workers that was measured, and what follows for a thousand."""
    found = [trial for name, trial in _trials().items() if " workers, " in name]
    workers, jobs = _planned()
    head = [
        "workers",
        "`polling_seconds`",
        "connections of each",
        "transactions a second of an idle one",
        "cores of the database for an idle one",
        "seconds of a core of the database for a video of 50 steps",
        f"so for {workers:,} workers and {jobs:,} videos a day",
    ]
    return table(head, [_worker_row(trial) for trial in found])


def _worker_row(trial: dict[str, Any]) -> list[str]:
    idle, video = trial["cores_of_an_idle_worker"], trial["database_seconds_a_video"]
    workers, jobs = _planned()
    cores = workers * idle + jobs / _DAY_SECONDS * video
    connections = workers * trial["connections_a_worker"]
    return [
        str(trial["workers"]),
        f"{trial['polling_seconds']:g}",
        f"{trial['connections_a_worker']:g}",
        f"{trial['transactions_a_second_of_an_idle_worker']:g}",
        f"{idle:g}",
        f"{video:g}",
        f"{cores:.1f} cores, {connections:,.0f} connections",
    ]


def day_table() -> str:
    """Markdown: a row for each simulated day."""
    head = [
        "rate at noon",
        "jobs",
        "devices busy",
        "wait: median, s",
        "99 of 100, s",
        "longest, s",
        "longest queue",
        "claims a second, busiest hour",
    ]
    return table(head, [_day_row(trial) for name, trial in _trials().items() if name.startswith(_DAY)])


def _day_row(trial: dict[str, Any]) -> list[str]:
    return [
        f"{1 + trial['wave']:g} × the mean",
        f"{trial['jobs']:,}",
        f"{trial['busy_percent']:.0f} %",
        *(f"{trial[name]:g}" for name in ("median_wait", "p99_wait", "longest_wait")),
        f"{trial['longest_queue']:,}",
        f"{trial['claims_a_second_at_noon']:.0f}",
    ]


def _planned() -> tuple[int, int]:
    """Workers, and jobs of a day, that the record is about."""
    trials = _trials()
    return next(trial["workers"] for name, trial in trials.items() if name.startswith(_DAY)), trials["stored"]["stored"]


def _trials(record: str = "gateway-scaling") -> dict[str, dict[str, Any]]:
    return Proof.read(_RECORDS / f"{record}.json").trials
