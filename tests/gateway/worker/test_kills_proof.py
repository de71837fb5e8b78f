"""Five hundred kills of workers, and what stands still or is away for half a minute: gateway-kills.json.

A trial is a part with its own database; parts that the record has are not repeated.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from ordeal import SOURCES, TAKEOVER, Ordeal
from postgresql import PostgreSQL
from shop import Shop

pytestmark = pytest.mark.proof

Trial = Callable[[str, Callable[[], dict[str, Any]]], dict[str, Any]]
PARTS, KILLS = 10, 25
"""Of each kind of database."""
STEP_SECONDS = 0.05
"""Half a second for a part, as of a real server."""
ON_POSTGRESQL = pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
def fleet(shop: Shop, database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(shop, database_url, tmp_path, STEP_SECONDS) as opened:
        yield opened


@pytest.fixture
def trial(proof: Callable[..., Any], shop: Shop) -> Trial:
    """Runs what has no record of these sources, and records what it returns; gives what is on record."""

    def run(name: str, work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        found = proof("gateway-kills", *SOURCES)
        name = f"{shop.database.engine.dialect.name} {name}"
        if name not in found.trials:
            found.record(name, **work())
        return dict(found.trials[name])

    return run


@pytest.mark.parametrize("part", range(PARTS))
def test_five_hundred_kills(fleet: Fleet, shop: Shop, request: pytest.FixtureRequest, trial: Trial, part: int) -> None:
    embedded = shop.database.embedded
    server = None if embedded else request.getfixturevalue("postgresql")

    def work() -> dict[str, Any]:
        chance = random.Random(part)
        blows = ["kill"] * KILLS + ["freeze"] * 2 + ["store" if embedded else "database"]
        chance.shuffle(blows)
        ordeal = Ordeal(fleet, shop, chance, server, workers=5, pause=(0.5, 2.0), frozen=6.0)
        return ordeal.run(blows)

    found = trial(f"kills {part}", work)
    assert found["kills"] == KILLS and found["blows_at_a_job"] > 0


def test_a_worker_that_stands_still_for_half_a_minute(fleet: Fleet, shop: Shop, trial: Trial) -> None:
    """It may have an ordinary job and an urgent one."""
    found = trial("frozen", lambda: Ordeal(fleet, shop, random.Random(1), frozen=30.0).run(["freeze"]))
    assert found["blows_at_a_job"] in (1, 2) and found["most_with_database_seconds"] <= TAKEOVER


@ON_POSTGRESQL
def test_a_database_that_is_away_for_half_a_minute(
    fleet: Fleet, shop: Shop, postgresql: PostgreSQL, trial: Trial
) -> None:
    ordeal = Ordeal(fleet, shop, random.Random(1), postgresql, away=30.0)
    assert trial("database away", lambda: ordeal.run(["database"]))["jobs"] >= ordeal.open_jobs


@ON_SQLITE
def test_a_store_that_is_away_for_half_a_minute(fleet: Fleet, shop: Shop, trial: Trial) -> None:
    ordeal = Ordeal(fleet, shop, random.Random(1), away=30.0)
    assert trial("store away", lambda: ordeal.run(["store"]))["jobs"] >= ordeal.open_jobs
