"""Several simulated devices: how much they make together, and how soon an urgent job begins. gateway-rates.json."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from fleet import Fleet
from ordeal import SOURCES
from postgresql import wait_until
from shop import Shop

from consisid_gateway.jobs.job import Status
from consisid_runtime import Options

pytestmark = [pytest.mark.proof, pytest.mark.parametrize("database_url", ["sqlite", "postgresql"], indirect=True)]

Trial = Callable[[str, Callable[[], dict[str, Any]]], None]
STEPS, STEP_SECONDS = 24, 0.5
"""Twelve seconds for a video of 49 frames, in proportion for others."""
FRAMES = (17, 49, 81)
DEVICES = 4
JOBS = 72


@pytest.fixture
def fleet(shop: Shop, database_url: str, tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(shop, database_url, tmp_path, STEP_SECONDS) as opened:
        opened.part_steps = 1
        yield opened


@pytest.fixture
def trial(proof: Callable[..., Any], shop: Shop) -> Trial:
    def run(name: str, work: Callable[[], dict[str, Any]]) -> None:
        found = proof("gateway-rates", *SOURCES)
        name = f"{shop.database.engine.dialect.name} {name}"
        if name not in found.trials:
            found.record(name, **work())

    return run


def device_seconds(frames: int) -> float:
    return STEPS * STEP_SECONDS * frames / 49


def make_all(fleet: Fleet, shop: Shop, devices: int, jobs: int) -> dict[str, float]:
    """Mixed jobs on so many devices: the seconds they took, and those of the best order."""
    lengths = [FRAMES[i % 3] for i in range(jobs)]
    random.Random(1).shuffle(lengths)
    for _ in range(devices):
        fleet.start()
    wait_until(lambda: len(fleet.ready()) == devices, 10.0)
    began = time.monotonic()
    ids = [shop.order(options=Options(steps=STEPS, frames=frames)).id for frames in lengths]
    wait_until(lambda: not shop.open(), 600.0)
    took = time.monotonic() - began
    assert all(job.status is Status.COMPLETED for job in shop.jobs(ids))
    loads = [0.0] * devices  # longest first: at most 4/3 of the best, and for so many jobs the best nearly
    for frames in sorted(lengths, reverse=True):
        loads[loads.index(min(loads))] += device_seconds(frames)
    return {
        "devices": devices,
        "jobs": jobs,
        "seconds": round(took, 2),
        "seconds_of_the_best_order": round(max(loads), 2),
        "device_seconds_a_second": round(sum(map(device_seconds, lengths)) / took, 3),
    }


def test_four_devices_make_four_times_as_much(fleet: Fleet, shop: Shop, trial: Trial) -> None:
    def work() -> dict[str, Any]:
        many = make_all(fleet, shop, DEVICES, JOBS)
        fleet.end(5.0)
        one = make_all(fleet, shop, 1, JOBS // DEVICES // 2)
        ratio = many["device_seconds_a_second"] / one["device_seconds_a_second"]
        over = many["seconds"] / many["seconds_of_the_best_order"] - 1.0
        assert ratio >= 3.85, (many, one)
        assert over <= 0.05, many
        return {"four": many, "one": one, "ratio": round(ratio, 3), "over_the_best_order": round(over, 4)}

    trial("four devices", work)


def test_urgent_jobs_begin_within_a_part(fleet: Fleet, shop: Shop, trial: Trial) -> None:
    def work() -> dict[str, Any]:
        for _ in range(2):
            fleet.start()
        usual = [shop.order(options=Options(steps=STEPS, frames=81)).id for _ in range(4)]
        wait_until(lambda: sum(job.done > 0 for job in shop.jobs(usual)) == 2, 10.0)
        waited, begun = [], []
        for _ in range(12):
            time.sleep(0.7)
            id = shop.order(urgent=True, options=Options(steps=2, frames=17)).id
            ordered = time.monotonic()
            wait_until(lambda id=id: shop.job(id).done > 0, 10.0)
            begun.append(time.monotonic() - ordered)
            wait_until(lambda id=id: shop.job(id).status is Status.COMPLETED, 10.0)
            job = shop.job(id)
            assert job.started_at is not None
            waited.append(job.started_at - job.created_at)
        part, own = STEP_SECONDS * 81 / 49, STEP_SECONDS * 17 / 49
        # The part that runs is not interrupted, and its own first part must have been told of.
        assert max(begun) <= part + own + 0.5
        assert max(waited) <= 0.5
        return {
            "urgent_jobs": len(waited),
            "slowest_claim_seconds": round(max(waited), 3),
            "slowest_first_part_seconds": round(max(begun), 3),
            "seconds_of_a_part": round(part, 3),
        }

    trial("urgent", work)
