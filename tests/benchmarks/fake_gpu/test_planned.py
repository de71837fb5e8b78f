"""A memory plan takes what it says, and makes the GPU compute what it computes without one."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consisid_benchmarks.fake_gpu import budgets
from consisid_benchmarks.fake_gpu.count import COPIES
from consisid_runtime.memory.needs import ORDER, SHARED, Size, read
from consisid_runtime.memory.plan import GIB, RESERVED, SETTINGS, SLOTS

BUDGET = budgets.read()["full"]["stages"]
NEEDS = read()
TOLERANCE = 0.05


def computed(found: dict[str, Any]) -> dict[str, Any]:
    """Everything but copies of weights: stage → kernel → its work."""
    kinds = ("launches", "bytes", "flops")
    return {
        stage: {name: [work[kind] for kind in kinds] for name, work in count["kernels"].items() if name != COPIES}
        for stage, count in found["stages"].items()
        if not stage.startswith("load")
    }


@pytest.fixture(scope="module")
def moved(fake_gpu: None) -> dict[str, Any]:
    script = Path(__file__).with_name("moved.py")
    found: dict[str, Any] = json.loads(budgets.run_fake("-P", str(script)))
    return found


@pytest.mark.proof
def test_weights_that_come_and_go_change_no_kernel(moved: dict[str, Any]) -> None:
    assert computed(moved["plan"]) == computed(moved["none"])
    assert moved["plan"]["stages"]["denoise/step"]["kernels"][COPIES]["launches"] > 10


@pytest.mark.proof
def test_the_host_does_not_wait_for_weights(moved: dict[str, Any]) -> None:
    step = moved["plan"]["stages"]["denoise/step"]
    assert step["waits"] == moved["none"]["stages"]["denoise/step"]["waits"]


@pytest.mark.proof
def test_decoders_that_share_their_weights_leave_none_on_the_gpu(moved: dict[str, Any]) -> None:
    assert moved["left_by_decoders"] == 0


@pytest.mark.proof
def test_streaming_takes_two_blocks_memory_instead_of_fours(moved: dict[str, Any]) -> None:
    everything, streamed = (moved[name]["modules"]["dit_step"] for name in ("none", "plan"))
    assert everything - streamed >= (4 - SLOTS) * NEEDS.block


def test_the_table_agrees_with_the_budgets() -> None:
    """Of modules that are a stage of their own."""
    for module, stage in (("text_encoder", "text"), ("vae_encoder", "encode")):
        assert BUDGET[f"load/{stage}"]["peak_bytes"] == NEEDS.weights[module]
    # A weight that is turned to channels-last is there twice for a moment.
    decoder = NEEDS.weights["vae_decoder_first"]
    assert decoder < BUDGET["load/decode"]["peak_bytes"] < 1.1 * decoder
    for module, stage in (("text_encoder", "text"), ("vae_encoder", "encode"), ("vae_decoder_next", "decode")):
        weights = NEEDS.weights[SHARED.get(module, module)]
        assert BUDGET[stage]["peak_bytes"] == weights + NEEDS.working[module]
    loaded = sum(NEEDS.weights[name] for name in ("dit_prepare", "dit_modulate", "dit_step")) + NEEDS.fixed
    assert BUDGET["denoise/step"]["peak_bytes"] <= loaded + NEEDS.working["dit_step"]


@pytest.mark.proof
def test_every_setting_takes_what_its_plan_says(fake_gpu: None, proof: Callable[..., Any]) -> None:
    record = proof("memory-plans")
    if all(str(setting) in record.trials for setting in SETTINGS):
        return
    names = ["none", *map(str, SETTINGS)]
    found = json.loads(budgets.run_fake("-m", "consisid_benchmarks.fake_gpu.planned", *names))
    for setting in SETTINGS:
        counts = found[str(setting)]
        budget, planned = setting * GIB - RESERVED, max(counts["planned"].values())
        assert max(counts["peak_bytes"], counts["load_bytes"]) <= budget
        assert abs(planned / counts["peak_bytes"] - 1) <= TOLERANCE
        for module in ORDER:
            assert counts["modules"][module] <= counts["planned"][module] * (1 + TOLERANCE)
        assert computed(counts) == computed(found["none"])
        record.record(str(setting), planned_bytes=planned, counted_bytes=counts["peak_bytes"])


@pytest.mark.proof
def test_a_larger_video_needs_at_most_what_the_rule_says(fake_gpu: None, proof: Callable[..., Any]) -> None:
    record = proof("memory-rule", Path(__file__).with_name("larger.py"))
    if "larger" in record.trials:
        return
    found = json.loads(budgets.run_fake("-P", str(Path(__file__).with_name("larger.py"))))["needs"]
    size = Size(**found["size"])
    assert size.tokens > 1.5 * NEEDS.size.tokens and size.pixels == 1.2 * NEEDS.size.pixels
    ruled = NEEDS.at(size).working
    assert {name for name, counted in found["working"].items() if ruled[name] < counted} == set()
    shares = {}
    for name in ("dit_step", "vae_decoder_first", "vae_decoder_next"):
        weights = NEEDS.weights[SHARED.get(name, name)]
        shares[name] = (weights + ruled[name]) / (weights + found["working"][name])
    assert all(share <= 1 + TOLERANCE for share in shares.values()), shares
    record.record("larger", **found["size"], ruled_over_counted=shares)
