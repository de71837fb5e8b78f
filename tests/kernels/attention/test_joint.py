"""Joint attention: an error of at most twice that of PyTorch's fused attention at the same precision."""

import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from accuracy import Qkv, attention_inputs, in_float64, relative_error
from machine_code import run_python
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import joint

overflows = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: torch.full(shape, float("nan"), **options))


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def in_numpy(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The textbook formula with NumPy's matrix products, which Triton's interpreter uses.

    With few rows, the order of summation determines the error, and processors differ in it. Each row is repeated 16
    times, so that these are products of matrices, as in the kernel, and not of vectors.
    """
    rows = q.repeat(1, 1, 16, 1).numpy() * np.float32(q.shape[-1] ** -0.5)
    scores = rows @ k.numpy().swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    found = (weights / weights.sum(-1, keepdims=True)) @ v.numpy()
    return torch.from_numpy(found[:, :, : q.shape[2]]).transpose(1, 2)


def check_accuracy(found: Tensor, tensors: Qkv, peers: Sequence[Callable[..., Tensor]] = (plain,)) -> None:
    exact = reference.joint_attention(*in_float64(tensors))
    assert found.dtype == tensors[0].dtype
    assert found.is_contiguous()
    assert relative_error(found, exact) <= 2 * max(relative_error(peer(*tensors), exact) for peer in peers)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 1), (1, 226), (63, 63), (64, 64), (129, 65), (226, 130), (2, 1025)], ids=str
)
def test_error_is_at_most_twice_that_of_pytorch(
    dtype: torch.dtype, size: int, queries: int, keys: int, device: str
) -> None:
    tensors = attention_inputs(queries, keys, dtype, device, size=size)
    few = queries <= 2 and dtype is torch.float32 and device == "cpu"
    check_accuracy(joint.joint_attention(*tensors), tensors, (plain, in_numpy) if few else (plain,))


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_a_long_sequence_of_two_branches(dtype: torch.dtype, device: str) -> None:
    tensors = attention_inputs(1025, 1025, dtype, device, heads=1, branches=2)
    check_accuracy(joint.joint_attention(*tensors), tensors)


@pytest.mark.parametrize("size", [16, 32])
def test_small_heads(size: int, device: str) -> None:
    tensors = attention_inputs(70, 70, torch.bfloat16, device, size=size)
    check_accuracy(joint.joint_attention(*tensors), tensors)


def overflowing(growth: float, largest: float, dtype: torch.dtype, device: str) -> Qkv:
    """The scores of row 7 exceed those of its first block, which has the last keys, by `growth`; for two keys."""
    q, k, v = attention_inputs(40, 200, torch.float32, device, heads=1)
    k[:, :, 150:] *= 0.1
    for key, rise in ((20, growth), (21, growth - 1)):
        k[:, :, key] = q[:, :, 7] * (rise * 8 / math.log2(math.e) / float(q[:, :, 7].norm()) ** 2)
    tensors = q.to(dtype), k.to(dtype), (v * largest / v.abs().max()).to(dtype)
    scores = (tensors[0].double() @ tensors[1].double().mT)[0, 0, 7] / 8 * math.log2(math.e)
    assert scores[20] - scores[-64:].max() > growth - 20
    return tensors


@overflows
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("growth", "largest"), [(150, 100.0), (60, 1e30)])
def test_rows_that_overflow_after_their_first_block(
    dtype: torch.dtype, growth: float, largest: float, device: str
) -> None:
    """Either an exponential overflows, or its product with a value."""
    tensors = overflowing(growth, min(largest, torch.finfo(dtype).max), dtype, device)
    check_accuracy(joint.joint_attention(*tensors), tensors)


@overflows
@pytest.mark.parametrize(("growth", "again"), [(60, False), (106, True), (124, True)])
def test_rows_start_again_where_their_sum_exceeds_the_room(
    growth: float, again: bool, device: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that started again computes what one with the running maximum from the start does, to the bit.

    A GPU divides by sums above 2^126 with result 0, the interpreter does not.
    """
    tensors = overflowing(growth, 1e-3, torch.bfloat16, device)
    found, tile = joint.joint_attention(*tensors), joint.tile
    monkeypatch.setattr(joint, "tile", lambda *case: {**tile(*case), "room": 0})
    assert torch.equal(found, joint.joint_attention(*tensors)) is again


def test_differences_of_large_scores_are_exact_in_float32(device: str) -> None:
    """Scores are integers near 2^20, which float32 holds, and their products with log₂e/√D are not."""
    q, k = (torch.randint(-2, 3, (1, 1, tokens, 64)).float() for tokens in (16, 96))
    q[..., 0], k[..., 0] = 1024, 1024
    tensors = q.to(device), k.to(device), torch.randn(1, 1, 96, 64).to(device)
    check_accuracy(joint.joint_attention(*tensors), tensors, (plain,))


@overflows
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("keys", [128, 190])
def test_a_last_block_at_minus_infinity_has_no_weight(keys: int, dtype: torch.dtype, device: str) -> None:
    """All products of the block that is processed first are below float32's smallest number."""
    q, k, v = (tensor / 8 for tensor in attention_inputs(70, keys, dtype, device))
    q[..., 0], k[..., 0] = 1e20, 0
    k[:, :, 64:, 0] = -1e20
    check_accuracy(joint.joint_attention(q, k, v), (q, k[:, :, :64], v[:, :, :64]))


@overflows
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("key", [0, 129])
def test_nan_in_a_key_reaches_every_query(key: int, dtype: torch.dtype, device: str) -> None:
    q, k, v = attention_inputs(70, 130, dtype, device)
    k[:, :, key, 5] = math.nan
    assert joint.joint_attention(q, k, v).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_partial_attention_and_its_denominators(dtype: torch.dtype, device: str) -> None:
    q, k, v = attention_inputs(70, 190, dtype, device)
    for part in (slice(0, 30), slice(30, 190)):
        keys, values = k[:, :, part].contiguous(), v[:, :, part].contiguous()
        out, denominator = joint.partial_attention(q, keys, values)
        check_accuracy(out.transpose(1, 2), (q, keys, values))
        exact = reference.partial_attention(*in_float64((q, keys, values)))[1]
        theirs = reference.partial_attention(q.float(), keys.float(), values.float())[1]
        assert denominator.dtype == torch.float32
        assert relative_error(denominator, exact) <= 2 * relative_error(theirs, exact)


def test_no_queries(device: str) -> None:
    q, k, v = attention_inputs(1, 5, torch.float16, device)
    assert joint.joint_attention(q[:, :, :0], k, v).shape == (1, 0, 2, 64)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"q": torch.zeros(2, 5, 3, 64).transpose(1, 2)}, r"q is non-contiguous torch.float32 \[2, 3, 5, 64\]"),
        (
            {"q": torch.zeros(2, 3, 5, 64).double()},
            "wanted contiguous torch.float16 or torch.bfloat16 or torch.float32",
        ),
        ({"q": torch.zeros(2, 3, 5, 48)}, "q has heads of 48 channels; wanted 16, 32, 64 or 128"),
        ({"k": torch.zeros(2, 4, 7, 64)}, r"k is torch.float32 \[2, 4, 7, 64\] .* \[any, 3, any, 64\]"),
        ({"k": torch.zeros(2, 3, 7, 64).half()}, "k is torch.float16 .* wanted contiguous torch.float32"),
        ({"v": torch.zeros(2, 3, 8, 64)}, r"v is .*\[2, 3, 8, 64\] .* \[2, 3, 7, 64\]"),
        (
            {"k": torch.zeros(3, 3, 7, 64), "v": torch.zeros(3, 3, 7, 64)},
            "q has 2 branches, k 3; wanted as many, or one",
        ),
        ({"k": torch.zeros(2, 3, 0, 64), "v": torch.zeros(2, 3, 0, 64)}, "k has no tokens; wanted at least one key"),
    ],
)
def test_invalid_arguments_raise(change: dict[str, Tensor], problem: str) -> None:
    arguments = {"q": torch.zeros(2, 3, 5, 64), "k": torch.zeros(2, 3, 7, 64), "v": torch.zeros(2, 3, 7, 64)} | change
    for operator in (joint.joint_attention, joint.partial_attention):
        with pytest.raises(ValueError, match=problem):
            operator(**arguments)


DISASSEMBLE = """
import subprocess, triton
from pathlib import Path
from consisid_kernels.attention.joint import VARIANTS
from consisid_kernels.compile.aot import compile_for

variant = next(v for v in VARIANTS if v.name == "joint_attention/bf16-d64" and v.architectures == (90,))
Path("kernel.cubin").write_bytes(compile_for(variant, 90).asm["cubin"])
tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
print(subprocess.run([tool, "-c", "kernel.cubin"], capture_output=True, text=True, check=True).stdout)
"""


def test_instructions_of_the_main_loop_on_hopper(tmp_path: Path) -> None:
    """Products are issued in groups without a wait after each, which ptxas adds if registers are short (C7510).

    The main loop has one exponential for each score, no maximum, and 5.4 instructions for each score.
    """
    lines = run_python("-c", DISASSEMBLE, folder=tmp_path).splitlines()
    code = [line for line in lines if re.match(r"\s+/\*[0-9a-f]{4,}\*/ |\.L", line)]
    assert len(code) > 1000
    assert sum("HGMMA" in line for line in code) == 64
    assert sum("WARPGROUP.ARRIVE" in line for line in code) == 8

    labels = {line.rstrip(":"): number for number, line in enumerate(code) if line.startswith(".L")}
    jumps = [(number, re.search(r"BRA.*`\((\.L\w+)\)", line)) for number, line in enumerate(code)]
    loops = [code[labels[jump[1]] : number] for number, jump in jumps if jump and labels[jump[1]] < number]
    main = next(loop for loop in loops if sum("MUFU.EX2" in line for line in loop) == 64)
    assert sum("FMNMX" in line for line in main) == 0
    assert sum("HGMMA" in line for line in main) == 16
    assert len(main) <= 5.5 * 64


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
@pytest.mark.parametrize("size", [64, 128])
def test_full_size(dtype: torch.dtype, size: int) -> None:
    q, k, v = attention_inputs(17_776, 17_776, dtype, "cuda", size=size, heads=48, branches=2)
    found = joint.joint_attention(q, k, v)
    assert torch.equal(found, joint.joint_attention(q, k, v))
    rows = torch.cat((torch.arange(0, 17_776, 1111), torch.arange(17_650, 17_776))).cuda()
    for branch, head in ((0, 0), (1, 47)):
        one = tuple(tensor[branch : branch + 1, head : head + 1].contiguous() for tensor in (q[:, :, rows], k, v))
        check_accuracy(found[branch : branch + 1, rows, head : head + 1].contiguous(), one)


@pytest.mark.gpu
def test_offsets_beyond_32_bits() -> None:
    q, k, v = attention_inputs(720_000, 70, torch.bfloat16, "cuda", heads=48)
    assert q.numel() > 2**31
    found = joint.joint_attention(q, k, v)[:, -300:].contiguous()
    check_accuracy(found, (q[:, :, -300:].contiguous(), k, v))


@pytest.mark.gpu
def test_offsets_of_keys_and_values_beyond_32_bits() -> None:
    """Tests the last head, whose first key has such an offset."""
    q, k, v = attention_inputs(70, 720_000, torch.bfloat16, "cuda", heads=48)
    assert k[:, :-1].numel() > 2**31
    found = joint.joint_attention(q, k, v)[:, :, -1:].contiguous()
    check_accuracy(found, tuple(tensor[:, -1:].contiguous() for tensor in (q, k, v)))
