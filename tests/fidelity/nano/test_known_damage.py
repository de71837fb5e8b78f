"""Known damage to the trained nano model must fail the gate, and controls must pass."""

from collections.abc import Callable
from pathlib import Path

import pytest

import consisid_nano
from consisid_fidelity.nano import experiments
from consisid_fidelity.nano.record import Findings
from consisid_fidelity.nano.run import ExperimentRun
from consisid_fidelity.nano.setup import ExperimentSetup
from consisid_fidelity.nano.variants import CONTROLS, DAMAGES, names

WORK = Path(__file__).parents[3] / "build" / "test" / "fidelity"


@pytest.fixture(scope="module")
def findings(trained_bundle_of: Callable[[str], Path]) -> Findings:
    """The findings of the small set; measurements of the same bundle, judges and source code are reused."""
    setup = ExperimentSetup(trained_bundle_of("onnx"), consisid_nano.checkpoint(), consisid_nano.judges())
    run = ExperimentRun(experiments.small_setup(setup), WORK)
    return experiments.summarise(run.measure(experiments.small_case_counts(), processes=1))


@pytest.mark.parametrize("name", names(DAMAGES))
def test_known_damage_is_caught(name: str, findings: Findings) -> None:
    assert not findings.verdicts[name]["passed"]


@pytest.mark.parametrize("name", names(CONTROLS))
def test_controls_pass(name: str, findings: Findings) -> None:
    assert findings.verdicts[name]["failed"] == []


def test_repeating_a_video_gives_the_same_bits(findings: Findings) -> None:
    assert findings.figures["again"]["latents"]["mean"] == 0
