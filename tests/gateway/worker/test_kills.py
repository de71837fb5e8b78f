"""A sample of kills: no job is lost, each video is published once, with the bytes of an undisturbed run."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import Fleet
from ordeal import Ordeal
from postgresql import PostgreSQL
from shop import Shop

STEP_SECONDS = 0.03


@pytest.fixture
def fleet(shop: Shop, database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(shop, database_url, tmp_path, STEP_SECONDS) as opened:
        yield opened


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_workers_that_are_killed_and_frozen(fleet: Fleet, shop: Shop) -> None:
    found = Ordeal(fleet, shop, random.Random(1)).run(["kill", "freeze", "kill", "store", "kill"])
    assert found["takeovers"] > 0


@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
def test_workers_and_the_database_that_are_killed(fleet: Fleet, shop: Shop, postgresql: PostgreSQL) -> None:
    found = Ordeal(fleet, shop, random.Random(2), postgresql).run(["kill", "freeze", "database", "kill", "kill"])
    assert found["takeovers"] > 0
