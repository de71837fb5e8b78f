"""A day of jobs on devices whose videos take the seconds that were measured or predicted: an event simulation."""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Iterator
from dataclasses import dataclass

_DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Day:
    """What comes, and who makes it.

    Attributes:
        jobs: of the day, most at noon: the rate is a wave about its mean.
        wave: by which part of the mean the rate rises at noon and falls at midnight.
        frames: of the videos, in equal shares.
        seconds_a_video: of 49 frames; others in proportion. That of tier `fast` on an H200, as predicted.
        polling: seconds between two looks of an idle worker at the queue.
    """

    jobs: int = 3_000_000
    workers: int = 1_000
    wave: float = 0.5
    frames: tuple[int, ...] = (17, 49, 81)
    seconds_a_video: float = 23.0
    polling: float = 0.3


@dataclass(frozen=True, slots=True)
class Course:
    """Of a day: seconds that jobs waited, and what the devices did."""

    jobs: int
    median_wait: float
    p99_wait: float
    longest_wait: float
    longest_queue: int
    busy_percent: float
    claims_a_second_at_noon: float


def simulate(day: Day, seed: int = 1) -> Course:
    """First come, first served; an idle worker finds a job at its next look."""
    chance = random.Random(seed)
    waits: list[float] = []
    starts = [0] * 24
    free = [(0.0, index) for index in range(day.workers)]
    heapq.heapify(free)
    pending: list[float] = []
    busy = 0.0
    longest = 0
    for at in _arrivals(day, chance):
        moment, worker = heapq.heappop(free)
        # One that has been idle looks at its own times; one that comes from a job looks at once.
        began = moment if moment >= at else at + chance.uniform(0.0, day.polling)
        took = day.seconds_a_video * chance.choice(day.frames) / 49
        heapq.heappush(free, (began + took, worker))
        waits.append(began - at)
        busy += took
        starts[min(23, int(began // 3600))] += 1
        while pending and pending[0] <= at:
            heapq.heappop(pending)
        heapq.heappush(pending, began)
        longest = max(longest, len(pending))
    waits.sort()
    return Course(
        jobs=len(waits),
        median_wait=waits[len(waits) // 2],
        p99_wait=waits[len(waits) * 99 // 100],
        longest_wait=waits[-1],
        longest_queue=longest,
        busy_percent=100 * busy / (day.workers * _DAY),
        claims_a_second_at_noon=max(starts) / 3600,
    )


def _arrivals(day: Day, chance: random.Random) -> Iterator[float]:
    mean = day.jobs / _DAY
    highest = mean * (1 + day.wave)
    at = 0.0
    while (at := at + chance.expovariate(highest)) < _DAY:
        if chance.random() * highest < mean * (1 - day.wave * math.cos(2 * math.pi * at / _DAY)):
            yield at
