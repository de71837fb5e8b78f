"""Callers of operators are found in source code, also where a module of operators is passed on."""

import shutil
from pathlib import Path

import pytest

from consisid_kernels.compile.caller_table import caller_table

REPOSITORY = Path(__file__).parents[3]
OPERATORS = "kernels/consisid_kernels/ops.py"
STEP = """
class Step:
    def __init__(self, network, operators):
        self.network, self._ops = network, operators

    def run(self, x):
        ops, network = self._ops, self.network
        return self.finish(network(x), operators=ops)

    def finish(self, x, operators):
        return operators.gated_residual(x)
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A repository with the operators and no caller."""
    (tmp_path / OPERATORS).parent.mkdir(parents=True)
    shutil.copy(REPOSITORY / OPERATORS, tmp_path / OPERATORS)
    return tmp_path


def cells(repository: Path, operator: str) -> str:
    (row,) = (row for row in caller_table(repository).splitlines() if row.startswith(f"| `{operator}` |"))
    return row.rpartition(" | ")[2].removesuffix(" |")


def write(repository: Path, name: str, content: str) -> str:
    """The link that the table has for the file."""
    path = repository / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)
    return f"[`{path.name}`](../{name})"


WITHOUT_CALLER = {
    "guided_step",
    "guided_step_counter",
    # `shared_joint_attention` launches their kernels.
    "merge_attention",
    "partial_attention",
}


def test_every_operator_has_a_caller() -> None:
    rows = caller_table(REPOSITORY).splitlines()[2:]
    without = {row.split("`")[1] for row in rows if row.endswith("| none yet |")}
    assert without <= WITHOUT_CALLER


def test_an_operator_without_a_caller_has_none(repository: Path) -> None:
    assert cells(repository, "gated_residual") == "none yet"
    write(repository, "runtime/a.py", "def gated_residual(x): ...\n\nother.gated_residual(gated_residual(1))\n")
    write(repository, "benchmarks/b.py", "from consisid_kernels import ops\n\nops.gated_residual()\n")
    assert cells(repository, "gated_residual") == "none yet"


@pytest.mark.parametrize(
    "source",
    [
        "from consisid_kernels import ops\n\nops.gated_residual()\n",
        "from consisid_kernels import ops as fused\n\nresult = fused.gated_residual()\n",
        "import consisid_kernels.ops\n\nconsisid_kernels.ops.gated_residual()\n",
        "from consisid_kernels.ops import gated_residual as step\n\nstep()\n",
        "def f():\n    from consisid_kernels.layers.modulation import gated_residual\n\n    gated_residual()\n",
        "from consisid_kernels.layers import modulation\n\nmodulation.gated_residual()\n",
    ],
)
def test_an_added_caller_is_reported(repository: Path, source: str) -> None:
    link = write(repository, "runtime/deep/engine.py", source)
    assert cells(repository, "gated_residual") == link
    assert cells(repository, "face_attention") == "none yet"


def test_a_module_of_operators_is_followed_into_the_class_that_takes_it(repository: Path) -> None:
    link = write(repository, "runtime/models/step.py", STEP)
    assert cells(repository, "gated_residual") == "none yet"
    write(repository, "runtime/engine.py", "from consisid_kernels import ops\n\nstep = Step(network, ops)\n")
    assert cells(repository, "gated_residual") == link


def test_a_module_of_operators_is_followed_out_of_the_function_that_returns_it(repository: Path) -> None:
    source = """
def load():
    from consisid_kernels.compile import tensorrt

    return tensorrt

kernels = load()
kernels.joint_attention("bf16", 64, 90)
"""
    link = write(repository, "export/plugins.py", source)
    assert cells(repository, "joint_attention") == link
    assert cells(repository, "joint_attention (Hopper form)") == "none yet"


def test_the_hopper_form_has_callers_of_its_own(repository: Path) -> None:
    link = write(
        repository,
        "runtime/a.py",
        "from consisid_kernels.attention import joint_hopper\n\njoint_hopper.joint_attention()\n",
    )
    assert cells(repository, "joint_attention (Hopper form)") == link
    assert cells(repository, "joint_attention") == "none yet"
