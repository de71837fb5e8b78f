"""Joint attention's Hopper form: its source code with random schedules, its machine code, its results on a GPU."""

import json
from typing import Any

import pytest
import torch
from gluon_machine import Descriptor, Machine, Pointer, executable, value
from machine_code import run_python
from torch import Tensor
from triton.experimental.gluon.nvidia.hopper import TensorDescriptor
from triton.runtime.jit import mangle_type

from consisid_kernels import launch, reference
from consisid_kernels.attention import choice, joint, joint_hopper

HOPPER = torch.cuda.is_available() and torch.cuda.get_device_capability() == (9, 0)
LENGTHS = [1, 31, 32, 33, 64, 65, 96, 97, 130]
"""One, two, odd and even numbers of blocks of 32 keys, full and partial; one and two programs of 128 queries."""


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def normal(*shape: int, dtype: torch.dtype, device: str = "cpu") -> Tensor:
    return torch.randn(shape).to(device, dtype)


def emulated(
    q: Tensor, k: Tensor, v: Tensor, *, seed: int = 0, stages: int = 3, room: int = 100, polynomial: int = 0,
    change: dict[str, Any] | None = None,
) -> tuple[Tensor, int]:  # fmt: skip
    """The kernel's result and the number of its copies; `change` replaces functions of `mbarrier`."""
    branches, heads, tokens, size = q.shape
    out = torch.full((branches, tokens, heads, size), torch.nan, dtype=q.dtype)
    blocks = (joint_hopper.ROWS, 32, 32)
    descriptors = [Descriptor(x.flatten(0, 1), [1, n, size]) for x, n in zip((q, k, v), blocks, strict=True)]
    copies = 0
    for program in range(-(-tokens // 128)):
        for head in range(branches * heads):
            machine = Machine((program, head), seed)
            names = executable(joint_hopper, machine)
            for name, replacement in (change or {}).items():
                setattr(names["mbarrier"], name, replacement)
            names["_attention"](Pointer(out), *descriptors, heads, stages, room, polynomial)
            copies += machine.copied
    return out, copies


def error(found: Tensor, wanted: Tensor) -> float:
    return float((found.double() - wanted).norm())


def check(found: Tensor, q: Tensor, k: Tensor, v: Tensor) -> None:
    """The error is at most twice that of PyTorch at the same precision."""
    wanted = reference.joint_attention(q.double(), k.double(), v.double())
    plain = torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2)
    assert error(found, wanted) <= 2 * error(plain, wanted)


def copies_of_a_pass(tokens: int) -> int:
    """Copies of one pass over all blocks."""
    return 2 * (-(-tokens // 32) + 1)


@pytest.mark.parametrize("tokens", LENGTHS)
@pytest.mark.parametrize("stages", [2, 3, 4])
def test_every_length_terminates_with_the_right_result(tokens: int, stages: int) -> None:
    q, k, v = (normal(1, 1, tokens, 64, dtype=torch.bfloat16) + i for i in range(3))
    found, copies = emulated(q, k, v, seed=tokens, stages=stages)
    check(found, q, k, v)
    assert copies == -(-tokens // 128) * (2 + copies_of_a_pass(tokens))


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(("room", "tokens"), [(0, 97), (100, 97), (100, 124)])
def test_results_do_not_depend_on_the_schedule(seed: int, room: int, tokens: int) -> None:
    """With one key in the last block, which comes first, and with keys in both of its halves."""
    q, k, v = (normal(1, 1, tokens, 64, dtype=torch.bfloat16) + i for i in range(3))
    first, _ = emulated(q, k, v, seed=100, stages=2, room=room)
    assert torch.equal(emulated(q, k, v, seed=seed, stages=2, room=room)[0], first)


@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("polynomial", [0, 1])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_dtypes_sizes_branches_and_the_polynomial(dtype: torch.dtype, polynomial: int, size: int) -> None:
    q, k, v = (normal(2, 2, 130, size, dtype=dtype) for _ in range(3))
    k[:, :, ::7] *= 4
    found, _ = emulated(q, k, v, room=0 if dtype == torch.float16 else 100, polynomial=polynomial)
    check(found, q, k, v)


@pytest.mark.parametrize("polynomial", [0, 1])
@pytest.mark.parametrize("tokens", [33, 64, 97])
@pytest.mark.parametrize(("rise", "passes"), [(90, 1), (110, 2), (300, 2)])
def test_rows_that_overflow_are_computed_again(tokens: int, rise: int, passes: int, polynomial: int) -> None:
    q, k, v = (normal(1, 1, tokens, 64, dtype=torch.bfloat16) / 4 for _ in range(3))
    q[:, :, 5, :32], k[:, :, 0, :32] = 4, rise / (32 * 4 * 1.4427 / 8)
    found, copies = emulated(q, k, v, seed=rise, polynomial=polynomial)
    check(found, q, k, v)
    assert copies == 2 + passes * copies_of_a_pass(tokens)


def test_rows_whose_products_with_values_overflow_are_computed_again() -> None:
    q, k, v = (normal(1, 1, 97, 64, dtype=torch.bfloat16) / 4 for _ in range(3))
    q[:, :, 5, :32], k[:, :, 0, :32] = 4, 60 / (32 * 4 * 1.4427 / 8)
    found, copies = emulated(q, k, v * 1e30)
    check(found, q, k, v * 1e30)
    assert copies == 2 + 2 * copies_of_a_pass(97)


def test_the_polynomial_is_close_to_the_exponential() -> None:
    """The cubic's own error of 7.5e-5, and the rounding of numbers up to 252."""
    x = torch.linspace(-125.9, 125.9, 100_001)
    found = executable(joint_hopper, Machine((0, 0), 0))["_polynomial"](value(x))
    assert float((found.double() / torch.exp2(x.double()) - 1).abs().max()) <= 1e-4


@pytest.mark.parametrize("polynomial", [0, 1])
def test_nan_in_a_query_reaches_its_row_only(polynomial: int) -> None:
    q, k, v = (normal(1, 1, 65, 64, dtype=torch.bfloat16) for _ in range(3))
    q[0, 0, 3, 0] = torch.nan
    found, _ = emulated(q, k, v, polynomial=polynomial)
    assert found[:, 3].isnan().all()
    assert not found[:, torch.arange(65) != 3].isnan().any()


@pytest.mark.parametrize("polynomial", [0, 1])
@pytest.mark.parametrize("key", [0, 1, 2, 3, 63, 64])
def test_nan_in_a_key_reaches_every_query(key: int, polynomial: int) -> None:
    q, k, v = (normal(1, 1, 65, 64, dtype=torch.bfloat16) for _ in range(3))
    k[0, 0, key, 0] = torch.nan
    assert emulated(q, k, v, polynomial=polynomial)[0].isnan().all()


@pytest.mark.parametrize("room", [0, 100])
def test_a_block_of_keys_at_minus_infinity_has_no_weight(room: int) -> None:
    """Its products are below float32's smallest number. The last block is processed first."""
    q, k, v = (normal(1, 1, 96, 64, dtype=torch.bfloat16) / 8 for _ in range(3))
    q[..., 0], k[..., 0] = 1e20, 0
    k[:, :, 64:, 0] = -1e20
    found, _ = emulated(q, k, v, room=room)
    check(found, q, k[:, :, :64], v[:, :, :64])


def test_the_machine_detects_a_missing_wait() -> None:
    q, k, v = (normal(1, 1, 97, 64, dtype=torch.bfloat16) for _ in range(3))
    with pytest.raises(AssertionError):
        check(emulated(q, k, v, change={"wait": lambda barrier, phase: None})[0], q, k, v)


def test_the_machine_detects_a_missing_arrival() -> None:
    q, k, v = (normal(1, 1, 97, 64, dtype=torch.bfloat16) for _ in range(3))
    with pytest.raises(RuntimeError, match="deadlock"):
        emulated(q, k, v, stages=2, change={"arrive": lambda barrier, count: None})


def test_other_devices_use_the_plain_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joint, "joint_attention", lambda *tensors: tensors)
    tensors = tuple(normal(1, 2, 3, 64, dtype=torch.bfloat16) for _ in range(3))
    assert joint_hopper.joint_attention(*tensors) is not None
    assert not joint_hopper.supports(*tensors)


@pytest.mark.parametrize(
    ("q", "k", "supported"),
    [
        ((2, 3, 5, 64), (2, 3, 7, 64), True),
        ((2, 3, 5, 128), (2, 3, 5, 128), True),
        ((2, 3, 5, 32), (2, 3, 5, 32), False),
        ((2, 3, 5, 64), (1, 3, 5, 64), False),
        ((2, 3, 5, 64), (2, 3, 0, 64), False),
        ((2, 0, 5, 64), (2, 0, 5, 64), False),
        ((3, 5, 64), (3, 5, 64), False),
    ],
)
def test_supported_arguments(
    monkeypatch: pytest.MonkeyPatch, q: tuple[int, ...], k: tuple[int, ...], supported: bool
) -> None:
    monkeypatch.setattr(joint_hopper, "architecture", lambda device: 90)
    tensors = [torch.zeros(shape, dtype=torch.bfloat16) for shape in (q, k, k)]
    assert joint_hopper.supports(*tensors) is supported
    assert not joint_hopper.supports(*(x.float() for x in tensors))
    assert not joint_hopper.supports(tensors[0].half(), *tensors[1:])
    if supported:
        assert not joint_hopper.supports(tensors[0].mT.contiguous().mT, *tensors[1:])
        shifted = torch.zeros(tensors[0].numel() + 1, dtype=torch.bfloat16)[1:].view(q)
        assert not joint_hopper.supports(shifted, *tensors[1:])


COMPILE = """
import json, subprocess, tempfile
from pathlib import Path
import triton
from consisid_kernels.compile.aot import compile_for, cost
from consisid_kernels.attention.joint_hopper import VARIANTS
(variant,) = (v for v in VARIANTS if v.name.endswith("bf16-d64"))
compiled = compile_for(variant, 90)
tools = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"
with tempfile.TemporaryDirectory() as folder:
    (ptx := Path(folder) / "k.ptx").write_text(compiled.asm["ptx"])
    command = [tools / "ptxas", "-v", "--gpu-name=sm_90a", ptx, "-o", Path(folder) / "k.cubin"]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    sass = subprocess.run([tools / "nvdisasm", Path(folder) / "k.cubin"], capture_output=True, text=True).stdout
print(json.dumps({"report": report, "sass": sass, "spills": cost(compiled, 90).spills}))
"""


def test_machine_code_overlaps_products_and_exponentials() -> None:
    found = json.loads(run_python("-c", COMPILE))
    assert found["spills"] == 0
    assert "serialized" not in found["report"]
    for instruction in ("UTMALDG.3D", "USETMAXREG.TRY_ALLOC", "USETMAXREG.DEALLOC", "SYNCS.PHASECHK", "HGMMA.64x64x16"):
        assert instruction in found["sass"], instruction
    loop = main_loop(found["sass"].splitlines())
    products = [i for i, line in enumerate(loop) if "HGMMA" in line]
    exponentials = [i for i, line in enumerate(loop) if "MUFU.EX2" in line]
    assert (len(products), len(exponentials)) == (16, 48)
    waits = [i for i, line in enumerate(loop) if "WARPGROUP.DEPBAR" in line]
    assert len(waits) == 2
    for start, wait in zip((products[0], products[8]), waits, strict=True):
        assert sum(start < i < wait for i in exponentials) == 24


def main_loop(lines: list[str]) -> list[str]:
    """The body of the first loop with 16 products and without a maximum."""
    labels = {line.split(":")[0].strip(): i for i, line in enumerate(lines) if line.strip().startswith(".L")}
    for i, line in enumerate(lines):
        start = labels.get(line.split("`(")[1].split(")")[0], i) if "BRA `(" in line else i
        body = lines[start:i]
        if sum("HGMMA" in x for x in body) == 16 and not any("FMNMX R" in x or "USETMAXREG" in x for x in body):
            return body
    raise AssertionError("the machine code has no such loop")


def test_the_tile_table_has_every_variant() -> None:
    table = json.loads((launch.TILES / "joint_attention_hopper.json").read_text())
    assert {variant.name.rpartition("/")[2] for variant in joint_hopper.VARIANTS} == set(table["default"])


def test_launches_use_the_compiled_descriptors() -> None:
    (variant,) = (v for v in joint_hopper.VARIANTS if v.name.endswith("bf16-d64"))
    q = torch.zeros(2, 5, 64, dtype=torch.bfloat16)
    descriptor = TensorDescriptor.from_tensor(q, [1, joint_hopper.ROWS, 64], joint_hopper._layout())
    assert mangle_type(descriptor) == variant.signature["q"]


@pytest.mark.gpu
@pytest.mark.skipif(not HOPPER, reason="needs a Hopper GPU")
class TestOnHopper:
    @pytest.mark.parametrize("tokens", [1, 63, 64, 65, 128, 129, 226, 256, 1025])
    @pytest.mark.parametrize("size", [64, 128])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_every_length(self, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, size: int, tokens: int) -> None:
        q, k, v = (normal(2, 3, tokens, size, dtype=dtype, device="cuda") for _ in range(3))
        k[:, :, ::7] *= 4
        empty = torch.empty
        monkeypatch.setattr(torch, "empty", lambda *shape, **options: empty(*shape, **options).fill_(torch.nan))
        found = joint_hopper.joint_attention(q, k, v)
        assert joint_hopper.supports(q, k, v)
        check(found, q, k, v)

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
    @pytest.mark.parametrize("size", joint_hopper.SIZES)
    def test_the_trial_is_passed(self, dtype: torch.dtype, size: int) -> None:
        tensors = choice.trial_inputs(torch.device("cuda"), dtype, size)
        assert joint_hopper.supports(*tensors)
        assert choice.trial(joint_hopper.joint_attention, tensors) == ""

    @pytest.mark.parametrize("rise", [90, 110, 300])
    def test_rows_that_overflow(self, rise: int) -> None:
        q, k, v = (normal(1, 2, 1025, 64, dtype=torch.bfloat16, device="cuda") / 4 for _ in range(3))
        q[:, :, 5, :32], k[:, :, 0, :32] = 4, rise / (32 * 4 * 1.4427 / 8)
        check(joint_hopper.joint_attention(q, k, v), q, k, v)

    def test_full_size_and_determinism(self) -> None:
        q, k, v = (normal(2, 48, 17776, 64, dtype=torch.bfloat16, device="cuda") for _ in range(3))
        found = joint_hopper.joint_attention(q, k, v)
        assert not found.isnan().any()
        assert torch.equal(found, joint_hopper.joint_attention(q, k, v))
        rows = torch.arange(0, 17776, 509, device="cuda")
        wanted = reference.joint_attention(q[:, :4, rows].double(), k[:, :4].double(), v[:, :4].double())
        plain = joint.joint_attention(q, k, v)
        assert error(found[:, rows, :4], wanted) <= 2 * error(plain[:, rows, :4], wanted)
