"""Known damage to the trained nano model must fail the gate, and controls must pass."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest

import consisid_nano
from consisid_fidelity.nano import experiments
from consisid_fidelity.nano.evaluation_set import SMALL
from consisid_fidelity.nano.record import Findings
from consisid_fidelity.nano.run import ExperimentRun
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_fidelity.nano.variants import CONTROLS, DAMAGES, EXACT, Variant, names

WORK = Path(__file__).parents[3] / "build" / "test" / "fidelity"
FEWEST = 4
"""Cases with which a control can pass: with three, the intervals are wider than every limit."""
SAMPLE = (
    "again",
    "tokens-in-another-order",
    "tokens-of-another",
    "first-injection-dropped",
    "second-step-skipped",
    "clean-latents-leaked",
)
"""Measured where only some minutes are spent on tests."""

FindingsOf = Callable[[int], Findings]
"""Of a number of cases: `FEWEST` of the sample, `SMALL` of all."""


def measured(variants: tuple[Variant, ...]) -> list[Any]:
    """A number of cases and the name of a variant, for each of the variants."""
    return [
        *((FEWEST, name) for name in names(variants) if name in SAMPLE),
        *(pytest.param(SMALL, name, marks=pytest.mark.proof) for name in names(variants)),
    ]


@pytest.fixture(scope="module")
def findings_of(trained_bundle_of: Callable[[str], Path]) -> FindingsOf:
    """Measurements of the same bundle, judges and source code are reused."""

    @cache
    def measure(count: int) -> Findings:
        setup = ExperimentSetup(trained_bundle_of("mixed"), consisid_nano.checkpoint(), consisid_nano.judges())
        run = ExperimentRun(experiments.small_setup(setup), WORK)
        counts = experiments.small_case_counts() if count == SMALL else dict.fromkeys((EXACT, *SAMPLE), count)
        return experiments.summarise(run.measure(counts, processes=1))

    return measure


@pytest.mark.parametrize(("count", "name"), measured(DAMAGES))
def test_known_damage_is_caught(count: int, name: str, findings_of: FindingsOf) -> None:
    assert not findings_of(count).verdicts[name]["passed"]


@pytest.mark.parametrize(("count", "name"), measured(CONTROLS))
def test_controls_pass(count: int, name: str, findings_of: FindingsOf) -> None:
    assert findings_of(count).verdicts[name]["failed"] == []


def test_repeating_a_video_gives_the_same_bits(findings_of: FindingsOf) -> None:
    assert findings_of(FEWEST).figures["again"]["latents"]["mean"] == 0
