"""Known damage to the trained nano model must fail the gate, and controls must pass."""

from collections.abc import Callable
from pathlib import Path

import pytest

import consisid_nano
from consisid_fidelity.nano import experiments
from consisid_fidelity.nano.evaluation_set import SMALL
from consisid_fidelity.nano.record import Findings
from consisid_fidelity.nano.run import ExperimentRun
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_fidelity.nano.variants import CONTROLS, DAMAGES, EXACT, names

WORK = Path(__file__).parents[3] / "build" / "test" / "fidelity"
FEWEST = 4
"""Cases with which a control can pass: with three, the intervals are wider than every limit."""
ALL_CASES = (EXACT, "8-bit-weights")
"""The control nearest to its limits is always measured on the whole small set."""


@pytest.fixture(scope="module", params=[FEWEST, pytest.param(SMALL, marks=pytest.mark.proof)], ids="{}-cases".format)
def findings(request: pytest.FixtureRequest, trained_bundle_of: Callable[[str], Path]) -> Findings:
    """The findings of the small set; measurements of the same bundle, judges and source code are reused."""
    setup = ExperimentSetup(trained_bundle_of("mixed"), consisid_nano.checkpoint(), consisid_nano.judges())
    run = ExperimentRun(experiments.small_setup(setup), WORK)
    counts = experiments.small_case_counts()
    counts |= {name: request.param for name in counts if name not in ALL_CASES}
    return experiments.summarise(run.measure(counts, processes=1))


@pytest.mark.parametrize("name", names(DAMAGES))
def test_known_damage_is_caught(name: str, findings: Findings) -> None:
    assert not findings.verdicts[name]["passed"]


@pytest.mark.parametrize("name", names(CONTROLS))
def test_controls_pass(name: str, findings: Findings) -> None:
    assert findings.verdicts[name]["failed"] == []


def test_repeating_a_video_gives_the_same_bits(findings: Findings) -> None:
    assert findings.figures["again"]["latents"]["mean"] == 0
