"""What the torch engine makes a GPU do, counted without one, is what `budgets.json` says; planted faults are seen."""

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from consisid_benchmarks.fake_gpu import budgets, device
from consisid_benchmarks.fake_gpu.budgets import WRITE, differences
from consisid_benchmarks.fake_gpu.count import Count, Work
from consisid_benchmarks.fake_gpu.full_size import CONFIGS
from consisid_benchmarks.predict.ceilings import DEVICES
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, plan
from consisid_runtime.signatures import MODULATION_BLOCK
from consisid_runtime.stages.denoise import Conditions, SolverState, denoise
from consisid_runtime.stages.schedule import Schedule
from consisid_runtime.stages.table import STAGES

BUDGET = budgets.read()
FAULTS, WARM = (Path(__file__).with_name(name) for name in ("faults.py", "warm.py"))


def test_nano_is_as_in_its_budget(fake_gpu: None) -> None:
    found = budgets.measure("nano")
    assert list(differences(found, BUDGET["nano"])) == [], f"where it is meant: {WRITE}"


@pytest.mark.proof
def test_every_stage_at_full_size_is_as_in_its_budget(fake_gpu: None, proof: Callable[..., Any]) -> None:
    record = proof("fake-gpu")
    if "full" in record.trials:
        return
    found = budgets.measure("full")
    assert list(differences(found, BUDGET["full"])) == [], f"where it is meant: {WRITE}"
    record.record(
        "full",
        versions=found["versions"],
        stages={name: {**stage["total"], "peak_bytes": stage["peak_bytes"]} for name, stage in found["stages"].items()},
    )


def test_budgets_have_every_stage_no_spills_and_fit_the_device() -> None:
    named = {stage.name for stage in STAGES if stage.name != "mp4"}
    for case in budgets.CASES:
        stages = BUDGET[case]["stages"]
        assert named <= {name.partition("/")[0] for name in stages}
        assert max(stage["peak_bytes"] for stage in stages.values()) < DEVICES["h200"].memory
        assert BUDGET[case]["compiled"]
        assert not any(form["spills"] for form in BUDGET[case]["compiled"].values())


def test_the_host_waits_for_no_step() -> None:
    steps = [BUDGET["nano"]["stages"]["denoise/steps"]]
    steps += [BUDGET["full"]["stages"][f"denoise/{step}"] for step in ("first-step", "step")]
    assert [step["waits"] for step in steps] == [{}, {}, {}]


def test_decoding_waits_for_its_latents_and_its_last_frames_alone() -> None:
    waits = [[*BUDGET[case]["stages"]["decode"]["waits"].items()] for case in budgets.CASES]
    assert [[(count, line.endswith("[a value]")) for line, count in each] for each in waits] == [
        [(1, False), (1, True)] for _ in budgets.CASES
    ]


class OnLatents(TorchDispatchMode):
    """Counts the operators that make another tensor of the latents' size, and the bytes that they read and write."""

    def __init__(self) -> None:
        super().__init__()
        self.launches = self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if func in (torch.ops.aten.mul.Tensor, torch.ops.aten.add.Tensor, torch.ops.aten.sub.Tensor):
            self.launches += 1
            self.bytes += sum(
                tensor.nbytes for tensor in (*args, out) if isinstance(tensor, torch.Tensor) and tensor.dim()
            )
        return out


def test_guidance_and_the_solver_are_too_little_for_a_kernel() -> None:
    """The figures of "Alternatives without benefit" in kernels/README.md."""
    request, size = plan(Options(), Geometry(49, 480, 720, 8, 4, 2, fixed_size=True)), (1, 13, 16, 60, 90)
    schedule, nothing = Schedule.from_config(CONFIGS["scheduler"], "dpm", request.steps), torch.zeros(2, 1)
    tables = dict.fromkeys(("block_modulations", "final_modulations"), torch.zeros(MODULATION_BLOCK))
    velocity, latents, generator = torch.zeros(2, *size[1:]), torch.zeros(size), torch.Generator().get_state()
    with OnLatents() as count:
        denoise(
            lambda _: {"velocity": velocity}, lambda _: tables, Conditions(*[nothing] * 6), latents,
            SolverState(latents, generator), request, schedule, range(1, 2),
        )  # fmt: skip
    step = BUDGET["full"]["stages"]["denoise/step"]["total"]
    assert count.launches == 14 and step["launches"] > 400
    assert count.bytes < step["bytes"] / 1000


def test_the_decoder_converts_no_features_between_layouts() -> None:
    """What is copied in full is nearest-neighbour enlargement and the caches of a first chunk."""
    stage = BUDGET["full"]["stages"]["decode"]
    copied = sum(stage["kernels"].get(name, {"bytes": 0})["bytes"] for name in ("clone.default", "contiguous.default"))
    assert copied < 0.1 * stage["total"]["bytes"]


@pytest.fixture(scope="module")
def seen(fake_gpu: None) -> dict[str, Any]:
    """Fault → what the fake GPU saw of it."""
    found: dict[str, Any] = json.loads(budgets.run_fake("-P", str(FAULTS)))
    return found


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("conditions on the CPU", ("denoise/step: waits 1 times, its budget is 0: ", "engines/torch.py")),
        ("hidden copy", ("denoise/step", "(clone.default")),
        ("wait in the loop", ("denoise/step: waits 2 times, its budget is 0: ", "block.feed_forward", "[a value]")),
        (
            "pageable draw",
            ("denoise/step: waits 1 times, its budget is 0: ", "send(draw", "pageable memory]"),
        ),
        ("no lead", ("denoise/step: waits 1 times, its budget is 0: ", "transfers.py finish", "nothing behind it]")),
        ("memory held", ("denoise/step", "peak bytes")),
        ("spill", ("joint._attention", "bytes of spills")),
    ],
)
def test_a_planted_fault_is_seen(seen: dict[str, Any], fault: str, words: tuple[str, ...]) -> None:
    found = list(differences(seen[fault], seen["none"]))
    assert [text for text in found if all(word in text for word in words)], found


def test_attention_that_fails_its_trial_is_not_launched_in_a_step(seen: dict[str, Any]) -> None:
    step = {name: seen[name]["stages"]["denoise/step"]["kernels"] for name in ("none", "attention that raises")}
    assert "triton.joint_hopper" not in step["attention that raises"]
    launches = step["attention that raises"]["triton.joint"]["launches"]
    assert launches == step["none"]["triton.joint"]["launches"] + step["none"]["triton.joint_hopper"]["launches"]


def test_a_weight_left_on_the_cpu_stops_the_run(seen: dict[str, Any]) -> None:
    assert "on cpu; wanted" in seen["weight on the CPU"]["error"]
    assert "error" not in seen["none"]


def test_a_warm_server_compiles_nothing_for_its_first_request(fake_gpu: None) -> None:
    found = json.loads(budgets.run_fake("-P", str(WARM), str(budgets.nano_bundle())))
    # Loading tries one form of attention against another.
    assert [kernel.partition(" ")[0] for kernel in found["cold"]] == ["joint._attention", "joint_hopper._attention"]
    assert len(found["warm"]) > 5
    assert found["after"] == found["warm"]


def test_less_than_the_budget_is_a_difference_too() -> None:
    better = copy.deepcopy(BUDGET["nano"])
    name, stage = next(iter(better["stages"].items()))
    stage["total"]["launches"] -= 1
    assert next(differences(better, BUDGET["nano"])).startswith(f"{name}: {stage['total']['launches']} launches, its")
    del better["stages"][name]
    assert next(differences(better, BUDGET["nano"])) == f"{name}: not run"
    assert next(differences(BUDGET["nano"], better)) == f"{name}: no budget"


def test_a_count_survives_json() -> None:
    count = Count(waits={"a line": 2}, start_bytes=1, peak_bytes=512, peak_at="there")
    count.add("mm.default", 12, 100)
    count.add("mm.default", 12, 100)
    assert count.total == Work(2, 24, 200)
    assert Count.from_json(json.loads(json.dumps(count.to_json()))) == count


def test_without_a_compiler_the_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    assert "install g++" in device.missing()
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "a real GPU" in device.missing()
