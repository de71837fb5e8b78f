"""What `make gpu` measures, at ConsisID-preview's size without a GPU."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from consisid_benchmarks.fake_gpu import budgets, device
from consisid_benchmarks.predict.seconds import RUN

SCRIPT = str(Path(__file__).with_name("on_fake_gpu.py"))


@pytest.fixture
def fake_gpu() -> None:
    if (reason := device.missing()) and not os.environ.get("CI"):
        pytest.skip(reason)


def rows(what: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(budgets.run_fake("-P", SCRIPT, what))
    return found


def test_a_step_at_full_width_is_compared(fake_gpu: None) -> None:
    assert rows("width") == []


@pytest.mark.proof
def test_every_predicted_stage_is_measured(fake_gpu: None) -> None:
    assert [row["case"] for row in rows("stages") if row["metric"] == "stage_seconds"] == [*RUN]


@pytest.mark.proof
def test_a_whole_request_holds_every_stages_weights(fake_gpu: None) -> None:
    (seconds, held) = rows("whole")
    assert seconds["case"] == "request/50-steps"
    stages = budgets.read()["full"]["stages"]
    weights = sum(stages[name]["start_bytes"] for name in ("face", "text", "encode", "denoise/start"))
    assert held["median"] > weights
