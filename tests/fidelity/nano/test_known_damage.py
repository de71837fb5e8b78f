"""Damage done on purpose to the trained nano model must not pass the gate, and what costs nothing must."""

from collections.abc import Callable
from pathlib import Path

import pytest

import consisid_nano
from consisid_fidelity.nano import experiments
from consisid_fidelity.nano.record import Findings
from consisid_fidelity.nano.run import Workbench
from consisid_fidelity.nano.variants import CONTROLS, DAMAGES, names
from consisid_fidelity.nano.worker import Subject

WORK = Path(__file__).parents[3] / "build" / "test" / "fidelity"


@pytest.fixture(scope="module")
def findings(trained_bundle_of: Callable[[str], Path]) -> Findings:
    """Of the small set; measurements of the same bundle, judges and code are kept."""
    subject = Subject(trained_bundle_of("onnx"), consisid_nano.checkpoint(), consisid_nano.judges())
    bench = Workbench(experiments.small_subject(subject), WORK)
    return experiments.find(bench.run(experiments.small(), processes=1))


@pytest.mark.parametrize("name", names(DAMAGES))
def test_known_damage_is_caught(name: str, findings: Findings) -> None:
    assert not findings.verdicts[name]["passed"]


@pytest.mark.parametrize("name", names(CONTROLS))
def test_what_costs_nothing_passes(name: str, findings: Findings) -> None:
    assert findings.verdicts[name]["failed"] == []


def test_making_a_video_again_gives_the_same_bits(findings: Findings) -> None:
    assert findings.figures["again"]["latents"]["mean"] == 0
