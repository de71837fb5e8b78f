"""On a GPU, ONNX Runtime's tensors stay there: every one is bound by its address, in the order of the streams."""

import json
from pathlib import Path
from typing import Any

import pytest

from consisid_benchmarks.fake_gpu import budgets


@pytest.fixture(scope="module")
def seen(fake_gpu: None) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(budgets.run_fake("-P", str(Path(__file__).with_name("binding.py"))))
    return found


def test_every_tensor_is_bound_where_it_lies(seen: dict[str, Any]) -> None:
    own = seen["own"]
    assert seen["bound"] == {
        "x": ["cuda", 0, 1, [1, 3], own["x"]],
        "half": ["cuda", 0, 16, [1, 3], own["half"]],
        "y": ["cuda", 0, 16, [1, 6], own["y"]],
        "chosen": ["cuda", 0],
    }
    assert len(set(own.values())) == 3
    assert seen["y"] == ["torch.bfloat16", "cuda:0", [1, 6]] and seen["chosen"] == "chosen"


def test_nothing_is_copied_and_nobody_waits(seen: dict[str, Any]) -> None:
    assert seen["kernels"] == [] and seen["waits"] == {}
    assert seen["device"] == "cuda:0"


def test_the_session_runs_on_a_stream_of_its_own_between_the_callers_work(seen: dict[str, Any]) -> None:
    assert seen["options"] == {"use_tf32": "0", "device_id": "0", "user_compute_stream": seen["stream"]}
    assert seen["stream"] != "0", "ONNX Runtime ignores the default stream"
    assert seen["order"] == [[0], [0], [int(seen["stream"])]]
