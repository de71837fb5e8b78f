"""Nothing passes from one request to the next, in any tier: compared with a pipeline that has had no other request."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import consisid_nano
from consisid_export.checkpoint import example
from consisid_runtime.options import Options
from consisid_runtime.pipeline import Pipeline
from consisid_runtime.video import Video

STEPS = 10
EXAMPLE = example.read(consisid_nano.checkpoint())


class Cancelled(Exception):
    pass


@pytest.fixture(scope="module")
def folder(trained_bundle_of: Callable[[str], Path]) -> Path:
    return trained_bundle_of("torch")


@pytest.fixture(scope="module")
def used(folder: Path) -> Pipeline:
    """Has had requests of every tier before."""
    return Pipeline.open(folder, device="cpu")


def generate(pipeline: Pipeline, tier: str, number: int, cancel_after: int | None = None) -> Video:
    """One of two requests, which differ in prompt, negative prompt and seed."""

    def progress(stage: str, done: int, total: int) -> None:
        if stage == "denoise" and done == cancel_after:
            raise Cancelled

    prompt, seed = EXAMPLE.calibration[number]
    negative = ("", EXAMPLE.calibration[0][0])[number]
    options = Options(tier=tier, seed=seed, steps=STEPS, frames=9, negative_prompt=negative)
    return pipeline.generate(EXAMPLE.portrait, prompt, options, progress=progress)


def same(one: Video, other: Video) -> bool:
    return bool(np.array_equal(one.frames, other.frames)) and one.mp4 == other.mp4


@pytest.mark.parametrize("tier", ["fast", "draft", "exact"])
def test_a_request_leaves_nothing_for_the_next(used: Pipeline, folder: Path, tier: str) -> None:
    first, between, again = (generate(used, tier, number) for number in (0, 1, 0))
    fresh = generate(Pipeline.open(folder, device="cpu"), tier, 0)
    assert same(first, again) and same(again, fresh) and not same(first, between)
    assert (first.info["denoise"]["computed_steps"] < STEPS) == (tier != "exact")
    assert (first.info["denoise"]["guided_steps"] < first.info["denoise"]["computed_steps"]) == (tier == "draft")


def test_a_request_that_is_cancelled_leaves_nothing(used: Pipeline) -> None:
    """Between any two steps, whether the next would be computed or skipped."""
    before = generate(used, "draft", 0)
    for step in range(1, STEPS):
        with pytest.raises(Cancelled):
            generate(used, "draft", 1, cancel_after=step)
    assert same(before, generate(used, "draft", 0))
