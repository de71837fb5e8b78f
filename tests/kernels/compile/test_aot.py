"""The machine code of every variant is within its budget on all of its architectures. Needs no GPU."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from machine_code import install_newest_triton, run_python

from consisid_kernels.compile import aot
from consisid_kernels.compile.aot import BUDGETS, exceeded
from consisid_kernels.launch import tile
from consisid_kernels.variant import MATRIX

BUDGET: dict[str, dict[str, int]] = json.loads(BUDGETS.read_text())
SHARED_LIMIT = {80: 163, 89: 99, 90: 227, 100: 227, 120: 99}
"""KiB of shared memory of a block (CUDA C++ Programming Guide, technical specifications per compute capability)."""
REGISTER_LIMIT = 255
HOPPER_REGISTERS, HOPPER_SHARED = 65_536, 228 * 1024
"""Of a multiprocessor of compute capability 9.0; a block takes 1 KiB more than its kernel asks for, and registers by
eights (CUDA C++ Programming Guide)."""

NEWEST = Path(__file__).parents[3] / "build" / "triton-newest"


def measured(only: str, *, triton: Path | None = None) -> dict[str, dict[str, int]]:
    arguments = ("-m", "consisid_kernels.compile.aot", "--only", only, "--json")
    costs: dict[str, dict[str, int]] = json.loads(run_python(*arguments, triton=triton, check=False))
    return costs


@pytest.mark.parametrize(
    "only",
    [
        "joint_attention/bf16-d64",
        "linear_float8/bf16",
        "face_attention/bf16",
        "linear_gelu/bf16",
        "gated_residual_norm/bf16",
    ],
)
def test_a_sample_is_within_its_budget(only: str) -> None:
    found = measured(only)
    assert found and found.keys() == {name for name in BUDGET if only in name.split()[0]}
    assert exceeded(found, BUDGET) == []


SPECIALISED_OTHERWISE = """
from consisid_kernels.compile import aot

for variant in aot.variants():
    for parameter in variant.kernel.params:
        if variant.signature.get(parameter.name) in ("i32", "i64"):
            if (parameter.name in variant.aligned) == parameter.do_not_specialize:
                print(variant.name, parameter.name)
"""


def test_integers_are_specialised_as_in_a_launch() -> None:
    """Triton specialises a launch on multiples of 16, except for `do_not_specialize`; `aligned` must do the same."""
    assert run_python("-c", SPECIALISED_OTHERWISE) == ""


@pytest.mark.proof
def test_every_variant_is_within_its_budget() -> None:
    found = measured("")
    assert found.keys() == BUDGET.keys()
    assert exceeded(found, BUDGET) == []


@pytest.mark.proof
def test_the_newest_triton_does_not_spill_and_uses_tensor_cores() -> None:
    found = measured("", triton=install_newest_triton(NEWEST))
    assert found.keys() == BUDGET.keys()
    for name, costs in found.items():
        assert costs["spills"] == 0, name
        assert bool(costs["matrix"]) == bool(BUDGET[name]["matrix"]), name


def test_budgets_fit_the_hardware_without_spills() -> None:
    for name, budget in BUDGET.items():
        architecture = int(name.rpartition("_")[2])
        assert budget["spills"] == 0, name
        assert budget["registers"] <= REGISTER_LIMIT, name
        assert budget["shared"] <= SHARED_LIMIT[architecture] * 1024, name


@pytest.mark.parametrize("kernel", ["joint_attention", "partial_attention"])
@pytest.mark.parametrize("case", ["bf16-d64", "fp16-d64"])
def test_two_programs_of_attention_share_a_multiprocessor_of_hopper(kernel: str, case: str) -> None:
    """So that the products of one overlap with the exponentials of the other."""
    start, threads = f"{kernel}/{case}", 32 * tile(kernel, case, 90)["num_warps"]
    needs = [need for name, need in BUDGET.items() if name.startswith(start) and name.endswith(" sm_90")]
    assert needs
    for need in needs:
        registers = -(-need["registers"] // 8) * 8
        assert 2 * threads * registers <= HOPPER_REGISTERS
        assert 2 * (need["shared"] + 1024) <= HOPPER_SHARED


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"registers": 201}, "201 registers, its budget is 200"),
        ({"spills": 8}, "8 spills, its budget is 0"),
        ({"shared": 70000}, "70000 shared, its budget is 65536"),
        ({"matrix": 0}, "0 tensor-core instructions, its budget is 12"),
        ({"registers": 149}, "149 registers, its budget is 200"),
        ({"shared": 49151}, "49151 shared, its budget is 65536"),
    ],
)
def test_variants_far_from_their_budget_are_reported(change: dict[str, int], problem: str) -> None:
    budget: dict[str, Any] = {"k/a sm_90": {"registers": 200, "spills": 0, "shared": 65536, "matrix": 12}}
    assert exceeded(budget, budget) == []
    found = {"k/a sm_90": budget["k/a sm_90"] | change}
    assert exceeded(found, budget) == [f"k/a sm_90: {problem}"]


def test_costs_are_read_from_the_machine_code(monkeypatch: pytest.MonkeyPatch) -> None:
    report = " Function k:\n  REG:40 STACK:16 SHARED:0 LOCAL:8 CONSTANT[0]:560 TEXTURE:0 SURFACE:0 SAMPLER:0\n"
    monkeypatch.setattr(aot, "_resources", {b"machine code": report}.__getitem__)
    asm = {"cubin": b"machine code", "ptx": 3 * f"{MATRIX[90]} x;\n" + f"{MATRIX[80]} y;\n"}
    compiled = SimpleNamespace(asm=asm, metadata=SimpleNamespace(shared=1234))
    assert aot.cost(compiled, 90) == aot.Cost(registers=40, spills=24, shared=1234, matrix=3)


def test_variants_without_a_budget_are_reported() -> None:
    found = {"k/a sm_90": {"registers": 1, "spills": 0, "shared": 0, "matrix": 0}}
    assert exceeded(found, {}) == ["k/a sm_90: no budget; python -m consisid_kernels.compile.aot --write --only 'k/a'"]
