"""Machine code, without a GPU: every variant of every kernel keeps its budget on every architecture it declares."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from consisid_kernels.compile.aot import BUDGETS, exceeded

BUDGET: dict[str, dict[str, int]] = json.loads(BUDGETS.read_text())
SHARED_LIMIT = {80: 163, 89: 99, 90: 227, 100: 227, 120: 99}
"""KiB that a block may have (CUDA C++ Programming Guide, technical specifications per compute capability)."""
REGISTER_LIMIT = 255

NEWEST = Path(__file__).parents[3] / "build" / "triton-newest"


def measured(only: str, *, triton: Path | None = None) -> dict[str, dict[str, int]]:
    """Costs, from a process without the interpreter's switch, which Triton reads when it is imported."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    if triton:
        environment["PYTHONPATH"] = str(triton)
    # Unlike PYTHONPATH, -P keeps the working directory off the path.
    command = [sys.executable, "-P", "-m", "consisid_kernels.compile.aot", "--only", only, "--json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.stdout, done.stderr
    found: dict[str, dict[str, int]] = json.loads(done.stdout)
    return found


@pytest.mark.parametrize(
    "only",
    [
        "joint_attention/bf16-d64",
        "joint_attention_8bit/int8-d64-bf16",
        "face_attention/bf16",
        "linear_gelu/bf16",
        "gated_residual_norm/bf16",
    ],
)
def test_a_sample_keeps_its_budget(only: str) -> None:
    found = measured(only)
    assert found and found.keys() == {name for name in BUDGET if only in name.split()[0]}
    assert exceeded(found, BUDGET) == []


UNLIKE = """
from consisid_kernels import aot

for variant in aot.variants():
    for parameter in variant.kernel.params:
        if variant.signature.get(parameter.name) in ("i32", "i64"):
            if (parameter.name in variant.aligned) == parameter.do_not_specialize:
                print(variant.name, parameter.name)
"""


def test_integers_are_compiled_as_they_are_launched() -> None:
    """Triton specialises a launch on integers that 16 divides, unless told not to: those are declared `aligned`."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-P", "-c", UNLIKE]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout == ""


@pytest.mark.proof
def test_every_variant_keeps_its_budget() -> None:
    found = measured("")
    assert found.keys() == BUDGET.keys()
    assert exceeded(found, BUDGET) == []


@pytest.mark.proof
def test_the_newest_triton_spills_nothing_and_stays_on_the_tensor_cores() -> None:
    if not NEWEST.is_dir():
        install = ["-m", "pip", "install", "--quiet", "--no-deps", "--target", str(NEWEST), "triton"]
        subprocess.run([sys.executable, *install], check=True)
    found = measured("", triton=NEWEST)
    assert found.keys() == BUDGET.keys()
    off = [name for name, costs in found.items() if costs["spills"] or bool(costs["matrix"]) != matrix(BUDGET[name])]
    assert off == []


def matrix(budget: Mapping[str, int]) -> bool:
    return budget["matrix"] > 0


def test_budgets_fit_the_hardware_and_allow_no_spill() -> None:
    for name, budget in BUDGET.items():
        architecture = int(name.rpartition("_")[2])
        assert budget["spills"] == 0, name
        assert budget["registers"] <= REGISTER_LIMIT, name
        assert budget["shared"] <= SHARED_LIMIT[architecture] * 1024, name


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"registers": 201}, "201 registers, its budget is 200"),
        ({"spills": 8}, "8 spills, its budget is 0"),
        ({"shared": 70000}, "70000 shared, its budget is 65536"),
        ({"matrix": 0}, "0 tensor-core instructions, its budget is 12"),
    ],
)
def test_what_costs_more_is_named(change: dict[str, int], problem: str) -> None:
    budget: dict[str, Any] = {"k/a sm_90": {"registers": 200, "spills": 0, "shared": 65536, "matrix": 12}}
    assert exceeded(budget, budget) == []
    found = {"k/a sm_90": budget["k/a sm_90"] | change}
    assert exceeded(found, budget) == [f"k/a sm_90: {problem}"]


def test_a_variant_without_a_budget_is_named() -> None:
    found = {"k/a sm_90": {"registers": 1, "spills": 0, "shared": 0, "matrix": 0}}
    assert exceeded(found, {}) == ["k/a sm_90: no budget; python -m consisid_kernels.compile.aot --write --only 'k/a'"]
