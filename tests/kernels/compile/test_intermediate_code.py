"""What Triton's interpreter cannot show: it keeps NaN and sums exactly, whatever the machine code does.

Code before the LLVM dialect ("ttgir") is examined; all variants are compiled up to it in one process.
"""

import json
import re

import pytest
from machine_code import run_python

SUMS = ("consisid_kernels.layers.ffn linear_float8/bf16 90",)
CLAMPS = (
    "consisid_kernels.layers.quantise quantise_rows/bf16-c3072 90",
    "consisid_kernels.layers.quantise quantise_rows/gelu-bf16-c12288 90",
)
LOWER = """
import importlib, json, sys
from triton.backends.nvidia.compiler import CUDABackend
from consisid_kernels.compile.aot import compile_for


class Lowered(Exception):
    pass


def stop(self, module, *_):
    raise Lowered(str(module))


CUDABackend.make_llir = stop
found = {}
for wanted in sys.argv[1:]:
    module, name, architecture = wanted.split()
    (variant,) = (
        v for v in importlib.import_module(module).VARIANTS if v.name == name and int(architecture) in v.architectures
    )
    try:
        found[wanted] = compile_for(variant, int(architecture)).asm["ttgir"]  # in Triton's cache
    except Lowered as code:
        found[wanted] = str(code)
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def code() -> dict[str, list[str]]:
    """Variant → lines of its intermediate code."""
    found: dict[str, str] = json.loads(run_python("-c", LOWER, *SUMS, *CLAMPS))
    return {name: text.splitlines() for name, text in found.items()}


@pytest.mark.parametrize("variant", SUMS)
def test_sums_of_float8_products_start_from_zero(code: dict[str, list[str]], variant: str) -> None:
    products = [line for line in code[variant] if re.search("(tt.|_)dot %", line) and "f8E4M3FN" in line]
    sums = [re.search(r"dot %\S+, %\S+, (%\w+)", line) for line in products]
    assert sums and all(found is not None and found[1].startswith("%cst") for found in sums)


@pytest.mark.parametrize("variant", CLAMPS)
def test_clamps_and_maxima_keep_nan(code: dict[str, list[str]], variant: str) -> None:
    """PTX has `max.NaN` for these; its plain `max` returns the other operand for NaN."""
    operations = re.compile(r"tt\.clampf.*propagateNan = (all|none)|arith\.(maximumf|minimumf|maxnumf|minnumf)")
    found = {match[1] or match[2] for line in code[variant] if (match := operations.search(line))}
    assert found and found <= {"all", "maximumf", "minimumf"}
