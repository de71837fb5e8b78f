"""When requests arrive, and of which kinds they are: drawn from a seed, so that every run has the same."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Kind:
    """What a request asks for.

    Attributes:
        frames: of its video.
        urgent: it goes before those that are not.
    """

    frames: int
    urgent: bool = False

    def __str__(self) -> str:
        return f"{self.frames} frames{', urgent' if self.urgent else ''}"


Mix = Mapping[Kind, float]
"""Kind → its share; the shares need not sum to 1."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request to come.

    Attributes:
        at: seconds after the load begins.
        number: counted from 0.
    """

    at: float
    kind: Kind
    number: int


def poisson(rate: float, seconds: float, mix: Mix, seed: int) -> list[Arrival]:
    """Arrivals of a Poisson process: independent of each other and of how fast the server is.

    Args:
        rate: a second, on average.
        seconds: that they spread over.

    Raises `ValueError` unless rate and seconds are above 0.
    """
    if rate <= 0 or seconds <= 0:
        raise ValueError(f"arrivals need a rate and seconds above 0, got {rate:g} and {seconds:g}")
    generator, found, at = random.Random(seed), list[Arrival](), 0.0
    kinds, shares = list(mix), list(mix.values())
    while (at := at + generator.expovariate(rate)) < seconds:
        found.append(Arrival(at, generator.choices(kinds, shares)[0], len(found)))
    return found
