"""Jobs that are made while their workers, their database and their store are taken away."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fleet import Fleet, Outage
from postgresql import PostgreSQL, wait_until
from shop import Shop

_GATEWAY = Path(__file__).parents[2] / "gateway" / "consisid_gateway"
SOURCES = [
    *sorted(file for name in ("jobs", "objects", "worker") for file in (_GATEWAY / name).glob("*.py")),
    *(Path(__file__).with_name(name) for name in ("fleet.py", "ordeal.py", "postgresql.py")),
    Path(__file__).parent / "processes" / "simulated_worker.py",
]
"""What records of the fleet depend on: its workers are a command."""
STEPS = 4 * Fleet.PART
TAKEOVER = 5.0
"""Seconds with a database, at most, until the job of a worker that is gone has another, or is in the queue again."""
_PATIENCE = 60.0
_NOTICED = 2.0
"""Seconds until workers find a database, or a store, to be back."""


@dataclass
class Ordeal:
    """See `run`.

    Attributes:
        open_jobs: so many wait or are made at any time, until the last blow.
        pause: seconds between two blows, from and to.
        frozen: seconds for which a worker stands still.
        away: seconds for which a database or a store is away.
        kills: workers that were killed.
        locked: workers that were frozen while one held SQLite's lock, so that no other could write.
    """

    fleet: Fleet
    shop: Shop
    chance: random.Random
    postgresql: PostgreSQL | None = None
    workers: int = 3
    open_jobs: int = 10
    pause: tuple[float, float] = (0.3, 1.2)
    frozen: float = 4.0
    away: float = 1.0
    kills: int = 0
    locked: int = 0
    jobs: dict[str, str] = field(default_factory=dict)
    later: list[tuple[float, Callable[[], None]]] = field(default_factory=list)

    def run(self, blows: Sequence[str]) -> dict[str, Any]:
        """Deal the blows: "kill", "freeze", "database", "store". Asserts what must hold, and returns figures."""
        for _ in range(self.workers):
            self.fleet.start()
        self._order()
        wait_until(lambda: any(job.done for job in self.shop.jobs(list(self.jobs))), _PATIENCE)
        for blow in blows:
            self._pass(self.chance.uniform(*self.pause))
            self._order()
            getattr(self, f"_{blow}")()
        while self.later:
            self._pass(0.05)
        wait_until(lambda: not self.shop.open(), _PATIENCE)
        before = self.fleet.verdict(self.jobs, STEPS)
        self.fleet.end(10.0)
        found = self.fleet.verdict(self.jobs, STEPS)
        # A worker that was frozen may have been at its last part, which counts when it ends.
        counted = {"steps_computed_again": found["steps_computed_again"]}
        assert found == before | counted, "workers that were told to end changed something"
        assert found["most_with_database_seconds"] <= TAKEOVER
        return {"blows": len(blows), "kills": self.kills, "frozen_with_the_lock": self.locked, **found}

    def _order(self) -> None:
        for _ in range(self.open_jobs - self.shop.open()):
            prompt = f"prompt {len(self.jobs)}"
            self.jobs[self.shop.order(prompt, steps=STEPS, urgent=len(self.jobs) % 4 == 3).id] = prompt

    def _pass(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, 0.05))
            moment = time.monotonic()
            due = [run for at, run in self.later if at <= moment]
            self.later = [(at, run) for at, run in self.later if at > moment]
            for run in due:
                run()

    def _kill(self) -> None:
        self.fleet.kill(self.fleet.pick(self.chance))
        self.kills += 1
        self.fleet.start()

    def _freeze(self) -> None:
        """One that has the most left to do, so that it could still do harm when it goes on."""
        process = self.fleet.busiest() or self.fleet.pick(self.chance)
        began = time.time()
        self.fleet.freeze(process)
        self.later.append((time.monotonic() + self.frozen, lambda: self.fleet.thaw(process)))
        if self.fleet.shop.database.embedded and self.fleet.locked():
            self.locked += 1
            self.fleet.outages.append(Outage(began, began + self.frozen, of_database=True))

    def _database(self) -> None:
        assert self.postgresql is not None
        began = time.time()
        self.postgresql.kill()
        time.sleep(self.away)
        self.postgresql.start()
        self._away_since(began, of_database=True)

    def _store(self) -> None:
        # A file in its place: to root no folder is closed.
        folder = self.shop.store_folder
        began = time.time()
        away = folder.rename(folder.with_name("away"))
        folder.write_text("")
        time.sleep(self.away)
        folder.unlink()
        shutil.move(away, folder)
        self._away_since(began, of_database=False)

    def _away_since(self, began: float, *, of_database: bool) -> None:
        self.fleet.outages.append(Outage(began, time.time() + _NOTICED, of_database))
