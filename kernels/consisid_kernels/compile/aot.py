"""Compiles kernels ahead of time, without a GPU, and measures the registers and memory that the machine code needs.

Modules with kernels list their `VARIANTS`; `budgets.json` has the budget of each variant for each architecture.
`python -m consisid_kernels.compile.aot` compiles all variants and compares them with it; `--write` writes it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import consisid_kernels
from consisid_kernels.variant import MATRIX, Variant

BUDGETS = Path(__file__).with_name("budgets.json")
SPARE = 0.75
"""The smallest share of a budget that a variant needs; versions of ptxas differ by less."""


@dataclass(frozen=True)
class Cost:
    """What a compiled variant needs.

    Attributes:
        registers: registers of a thread.
        spills: bytes of a thread's stack and local memory.
        shared: bytes of a block's shared memory.
        matrix: the number of tensor-core instructions in the PTX.
    """

    registers: int
    spills: int
    shared: int
    matrix: int


def variants() -> Iterator[Variant]:
    """The `VARIANTS` of all modules of this package."""
    for module in pkgutil.walk_packages(consisid_kernels.__path__, "consisid_kernels."):
        if module.name != __name__:
            yield from getattr(importlib.import_module(module.name), "VARIANTS", ())


def compile_for(variant: Variant, architecture: int) -> Any:
    """Compiles a variant, without a GPU. The result has `.asm["ptx"]`, `.asm["cubin"]` and `.metadata`."""
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource, compile
    from triton.experimental.gluon._runtime import GluonASTSource

    order = list(variant.signature)
    attributes = {(order.index(name),): [["tt.divisibility", 16]] for name in variant.aligned}
    source_type = GluonASTSource if variant.kernel.is_gluon() else ASTSource
    source = source_type(variant.kernel, dict(variant.signature), dict(variant.constants), attributes)
    options = {"num_warps": variant.warps, "num_stages": variant.stages, **variant.options}
    return compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def cost(compiled: Any, architecture: int) -> Cost:
    """The cost of a kernel that `compile_for` returned."""
    matrix = compiled.asm["ptx"].count(MATRIX[architecture])
    return Cost(*cubin_needs(compiled.asm["cubin"]), int(compiled.metadata.shared), matrix)


def cubin_needs(cubin: bytes) -> tuple[int, int]:
    """Registers of a thread, and bytes of its stack and local memory."""
    match = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", _resources(cubin))
    assert match is not None
    registers, stack, local = (int(number) for number in match.groups())
    return registers, stack + local


def _resources(cubin: bytes) -> str:
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        return subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout


def measure(names: str = "") -> dict[str, dict[str, int]]:
    """Costs of all variants whose name contains `names`, by "variant sm_NN"."""
    costs = {}
    for variant in variants():
        if names in variant.name:
            for architecture in variant.architectures:
                costs[f"{variant.name} sm_{architecture}"] = asdict(
                    cost(compile_for(variant, architecture), architecture)
                )
    return costs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write budgets.json instead of comparing with it")
    parser.add_argument("--only", default="", help="variants whose name contains this")
    parser.add_argument("--json", action="store_true", help="print the costs")
    arguments = parser.parse_args()
    costs = measure(arguments.only)
    if arguments.json:
        print(json.dumps(costs))
    budgets: dict[str, dict[str, int]] = json.loads(BUDGETS.read_text()) if BUDGETS.is_file() else {}
    if arguments.write:
        kept = {name: budget for name, budget in budgets.items() if arguments.only and arguments.only not in name}
        BUDGETS.write_text(json.dumps(dict(sorted((kept | costs).items())), indent=1) + "\n")
    elif problems := exceeded(costs, budgets):
        sys.exit("\n".join(problems))


def exceeded(found: Mapping[str, Mapping[str, int]], budgets: Mapping[str, Mapping[str, int]]) -> list[str]:
    """Messages for variants over their budget, far below it, with fewer tensor-core instructions, or without a budget.

    A budget that was written for other code than today's allows what it should refuse.
    """
    problems = []
    for name, costs in found.items():
        budget = budgets.get(name)
        if budget is None:
            problems.append(
                f"{name}: no budget; python -m consisid_kernels.compile.aot --write --only '{name.split()[0]}'"
            )
            continue
        problems += [
            f"{name}: {costs[what]} {what}, its budget is {budget[what]}"
            for what in ("registers", "spills", "shared")
            if not SPARE * budget[what] <= costs[what] <= budget[what]
        ]
        if costs["matrix"] < budget["matrix"]:
            problems.append(f"{name}: {costs['matrix']} tensor-core instructions, its budget is {budget['matrix']}")
    return problems


if __name__ == "__main__":
    main()
