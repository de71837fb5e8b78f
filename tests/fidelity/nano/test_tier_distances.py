"""A tier out of its published bound is refused: how far its videos may be from the exact ones of the same people.

Distances between paired runs need few people; similarity and prompt need the hundred of `consisid bench tiers`, which
writes no figures for a tier that is out of its limits.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest

import consisid_nano
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_fidelity.metrics.distance import relative_distance
from consisid_fidelity.nano.damage import skipping_where_it_matters
from consisid_fidelity.nano.evaluation_set import case
from consisid_fidelity.nano.gate import TIER_LIMITS
from consisid_fidelity.nano.generation import VideoGenerator
from consisid_fidelity.nano.variants import EXACT, VARIANTS, Variant
from consisid_runtime.bundle import Bundle
from consisid_runtime.options import Options

PEOPLE = 3

Distances = Callable[..., list[float]]
"""Of a variant and a number of people."""


@pytest.fixture(scope="module")
def distances(trained_bundle_of: Callable[[str], Path]) -> Distances:
    """A variant → the distance of each person's last latents to those of `exact`."""
    checkpoint = Checkpoint.open(consisid_nano.checkpoint())
    generator = VideoGenerator(Bundle.open(trained_bundle_of("mixed"), device="cpu"), checkpoint, Options())
    generator.pipeline.stages["decode"] = lambda latents, request: np.zeros((1, 8, 8, 3), np.uint8)
    exact = cache(lambda number: generator.generate(case(number), Variant(EXACT)).latents)
    return lambda variant, people=PEOPLE: [
        relative_distance(generator.generate(case(number), variant).latents, exact(number)) for number in range(people)
    ]


@pytest.mark.parametrize("tier", TIER_LIMITS)
def test_a_tier_stays_within_its_published_distance(distances: Distances, tier: str) -> None:
    # A CPU emulates fp8, which takes ten times as long.
    found, limits = distances(VARIANTS[tier], 1 if tier == "fp8" else PEOPLE), TIER_LIMITS[tier]
    assert 0 < np.mean(found) <= limits.latents.value
    assert max(found) <= limits.worst_latents.value


def test_weights_in_four_bits_are_out_of_the_bound_of_fp8(distances: Distances) -> None:
    limit = TIER_LIMITS["fp8"].latents.value
    assert distances(Variant("four-bits", step=4), 1)[0] > 1.5 * limit


def test_saturated_8_bit_numbers_are_out_of_the_bound(distances: Distances) -> None:
    """By far: one person shows it."""
    (found,) = distances(Variant("saturated", step="fp8-saturated"), 1)
    assert found > TIER_LIMITS["fp8"].worst_latents.value


def test_a_wrong_skip_is_out_of_the_bound(distances: Distances) -> None:
    wrong = replace(VARIANTS["fast"], name="wrong", plan=skipping_where_it_matters)
    assert np.mean(distances(wrong)) > TIER_LIMITS["fast"].latents.value
