"""Joint attention: at most twice the error of PyTorch's own fused attention at the same precision."""

import math
import os
import re
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import joint

overflows = pytest.mark.filterwarnings("ignore:(overflow|invalid value) encountered:RuntimeWarning")
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
Qkv = tuple[Tensor, Tensor, Tensor]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: torch.full(shape, float("nan"), **options))


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def wide(tensors: Qkv) -> Qkv:
    q, k, v = tensors
    return q.double(), k.double(), v.double()


def inputs(
    queries: int, keys: int, dtype: torch.dtype, device: str, *, size: int = 64, heads: int = 2, branches: int = 1
) -> Qkv:
    """With a channel and a few tokens far from the rest, as keys and values of the network have them."""
    q, k, v = (torch.randn(branches, heads, tokens, size) for tokens in (queries, keys, keys))
    k[..., 3] += 8
    k[:, :, :: max(keys // 3, 1)] *= 3
    v[:, :, ::7] *= 50
    return q.to(device, dtype), k.to(device, dtype), v.to(device, dtype)


def plain(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v).transpose(1, 2)


def in_numpy(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """The textbook's formula with the matrix products that Triton's interpreter uses: of a few rows, the order in which
    these add decides the error, and processors differ in it. Each row comes 16 times, which makes them products of
    matrices, as the kernel's are, and not of a vector."""
    rows = q.repeat(1, 1, 16, 1).numpy() * np.float32(q.shape[-1] ** -0.5)
    scores = rows @ k.numpy().swapaxes(-1, -2)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    found = (weights / weights.sum(-1, keepdims=True)) @ v.numpy()
    return torch.from_numpy(found[:, :, : q.shape[2]]).transpose(1, 2)


def agrees(found: Tensor, tensors: Qkv, peers: Sequence[Callable[..., Tensor]] = (plain,)) -> None:
    exact = reference.joint_attention(*wide(tensors))
    assert found.dtype == tensors[0].dtype
    assert found.is_contiguous()
    assert error(found, exact) <= 2 * max(error(peer(*tensors), exact) for peer in peers)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize(
    ("queries", "keys"), [(1, 1), (1, 226), (63, 63), (64, 64), (129, 65), (226, 130), (2, 1025)], ids=str
)
def test_error_is_at_most_twice_that_of_pytorch(
    dtype: torch.dtype, size: int, queries: int, keys: int, device: str
) -> None:
    tensors = inputs(queries, keys, dtype, device, size=size)
    few = queries <= 2 and dtype is torch.float32 and device == "cpu"
    agrees(joint.joint_attention(*tensors), tensors, (plain, in_numpy) if few else (plain,))


@pytest.mark.parametrize("dtype", DTYPES[:2], ids=str)
def test_a_long_sequence_of_two_branches(dtype: torch.dtype, device: str) -> None:
    tensors = inputs(1025, 1025, dtype, device, heads=1, branches=2)
    agrees(joint.joint_attention(*tensors), tensors)


@pytest.mark.parametrize("size", [16, 32])
def test_small_heads(size: int, device: str) -> None:
    tensors = inputs(70, 70, torch.bfloat16, device, size=size)
    agrees(joint.joint_attention(*tensors), tensors)


def outgrowing(growth: float, largest: float, dtype: torch.dtype, device: str) -> Qkv:
    """Row 7 rises by 2^growth over its first block, which is that of the last keys; to two keys, the second half."""
    q, k, v = inputs(40, 200, torch.float32, device, heads=1)
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
def test_rows_that_outgrow_their_first_block(dtype: torch.dtype, growth: float, largest: float, device: str) -> None:
    """Exponentials that overflow, and products with values that do."""
    tensors = outgrowing(growth, min(largest, torch.finfo(dtype).max), dtype, device)
    agrees(joint.joint_attention(*tensors), tensors)


@overflows
@pytest.mark.parametrize("dtype", DTYPES[1:], ids=str)
@pytest.mark.parametrize("keys", [128, 190])
def test_a_last_block_at_minus_infinity_has_no_weight(keys: int, dtype: torch.dtype, device: str) -> None:
    """Products beyond float32's largest number, of all keys of the block that comes first."""
    q, k, v = (tensor / 8 for tensor in inputs(70, keys, dtype, device))
    q[..., 0], k[..., 0] = 1e20, 0
    k[:, :, 64:, 0] = -1e20
    agrees(joint.joint_attention(q, k, v), (q, k[:, :, :64], v[:, :, :64]))


@overflows
@pytest.mark.filterwarnings("ignore:All-NaN slice encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("key", [0, 129])
def test_a_key_that_is_not_a_number_is_seen_by_all(key: int, dtype: torch.dtype, device: str) -> None:
    q, k, v = inputs(70, 130, dtype, device)
    k[:, :, key, 5] = math.nan
    assert joint.joint_attention(q, k, v).isnan().all()


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_parts_and_their_denominators(dtype: torch.dtype, device: str) -> None:
    q, k, v = inputs(70, 190, dtype, device)
    for part in (slice(0, 30), slice(30, 190)):
        keys, values = k[:, :, part].contiguous(), v[:, :, part].contiguous()
        out, denominator = joint.partial_attention(q, keys, values)
        agrees(out.transpose(1, 2), (q, keys, values))
        exact = reference.partial_attention(*wide((q, keys, values)))[1]
        theirs = reference.partial_attention(q.float(), keys.float(), values.float())[1]
        assert denominator.dtype == torch.float32
        assert error(denominator, exact) <= 2 * error(theirs, exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_merged_parts(dtype: torch.dtype, device: str) -> None:
    q, k, v = inputs(70, 130, dtype, device, branches=2)
    shared = tuple(tensor[:1] for tensor in inputs(70, 40, dtype, device))
    one, two = joint.partial_attention(q, k, v), joint.partial_attention(q[:1], *shared[1:])
    for parts in ((*one, *two), (*two, *one)):
        found = joint.merge_attention(*parts)
        exact = reference.merge_attention(*(part.double() for part in parts))
        theirs = reference.merge_attention(parts[0], parts[1].to(dtype), parts[2], parts[3].to(dtype))
        assert found.dtype == dtype
        assert error(found, exact) <= 2 * error(theirs, exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_first_layer_s_video_is_shared_by_the_branches(dtype: torch.dtype, device: str) -> None:
    text = inputs(9, 9, dtype, device, branches=2)
    video = inputs(140, 140, dtype, device)
    found = joint.shared_joint_attention(text, video)
    exact = reference.shared_joint_attention(wide(text), wide(video))
    theirs = reference.shared_joint_attention(text, video)
    assert found.is_contiguous()
    assert error(found, exact) <= 2 * error(theirs, exact)
    q, k, v = (
        torch.cat((short, long.expand(2, -1, -1, -1)), 2) for short, long in zip(wide(text), wide(video), strict=True)
    )
    assert error(exact, reference.joint_attention(q, k, v)) < 1e-12


@pytest.mark.parametrize("queries", [0, 9])
def test_an_empty_text_takes_no_part(queries: int, device: str) -> None:
    q, k, v = inputs(9, 9, torch.bfloat16, device, branches=2)
    text = q[:, :, :queries].contiguous(), k[:, :, :0].contiguous(), v[:, :, :0].contiguous()
    video = inputs(70, 70, torch.bfloat16, device)
    found = joint.shared_joint_attention(text, video)
    exact = reference.shared_joint_attention(wide(text), wide(video))
    assert found.shape == exact.shape == (2, queries + 70, 2, 64)
    assert error(found, exact) <= 2 * error(reference.shared_joint_attention(text, video), exact)


def test_no_queries_give_nothing(device: str) -> None:
    q, k, v = inputs(1, 5, torch.float16, device)
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
def test_what_does_not_fit_is_refused(change: dict[str, Tensor], problem: str) -> None:
    made = {"q": torch.zeros(2, 3, 5, 64), "k": torch.zeros(2, 3, 7, 64), "v": torch.zeros(2, 3, 7, 64)} | change
    for refuses in (joint.joint_attention, joint.partial_attention):
        with pytest.raises(ValueError, match=problem):
            refuses(**made)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"out": torch.zeros(1, 3, 5, 64)}, "out, with tokens before heads, is non-contiguous"),
        ({"other": torch.zeros(1, 6, 3, 64).transpose(1, 2)}, r"other, .* \[1, 6, 3, 64\] .* \[any, 5, 3, 64\]"),
        (
            {"denominator": torch.zeros(1, 3, 5).half()},
            "denominator is torch.float16 .* wanted contiguous torch.float32",
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused(change: dict[str, Tensor], problem: str) -> None:
    part = torch.zeros(1, 5, 3, 64).transpose(1, 2)
    made = {"out": part, "denominator": torch.zeros(1, 3, 5), "other": part, "other_denominator": torch.zeros(1, 3, 5)}
    with pytest.raises(ValueError, match=problem):
        joint.merge_attention(**(made | change))


def test_a_video_of_two_branches_is_refused() -> None:
    text = inputs(4, 4, torch.float32, "cpu", branches=2)
    with pytest.raises(ValueError, match=r"video's q is torch.float32 \[2, 2, 4, 64\] .* \[1, 2, any, 64\]"):
        joint.shared_joint_attention(text, text)


DISASSEMBLE = """
import subprocess, triton
from pathlib import Path
from consisid_kernels import aot, attention

variant = next(v for v in attention.VARIANTS if v.name == "joint_attention/bf16-d64" and v.architectures == (90,))
Path("kernel.cubin").write_bytes(aot.compile_for(variant, 90).asm["cubin"])
tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "nvdisasm"
print(subprocess.run([tool, "-c", "kernel.cubin"], capture_output=True, text=True, check=True).stdout)
"""


def test_hopper_s_machine_code_is_what_the_kernel_was_written_for(tmp_path: Path) -> None:
    """Products run in groups, not each waited for, as ptxas makes them where it lacks registers (its warning C7510).

    The main loop has one exponential for each score, no maximum, and 5.4 instructions for each.
    """
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-P", "-c", DISASSEMBLE]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    code = [line for line in done.stdout.splitlines() if re.match(r"\s+/\*[0-9a-f]{4,}\*/ |\.L", line)]
    assert len(code) > 1000, done.stderr
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
def test_the_network_s_size(dtype: torch.dtype, size: int) -> None:
    q, k, v = inputs(17_776, 17_776, dtype, "cuda", size=size, heads=48, branches=2)
    found = joint.joint_attention(q, k, v)
    assert torch.equal(found, joint.joint_attention(q, k, v))
    rows = torch.cat((torch.arange(0, 17_776, 1111), torch.arange(17_650, 17_776))).cuda()
    for branch, head in ((0, 0), (1, 47)):
        one = tuple(tensor[branch : branch + 1, head : head + 1].contiguous() for tensor in (q[:, :, rows], k, v))
        agrees(found[branch : branch + 1, rows, head : head + 1].contiguous(), one)


@pytest.mark.gpu
def test_offsets_beyond_32_bits() -> None:
    q, k, v = inputs(720_000, 70, torch.bfloat16, "cuda", heads=48)
    assert q.numel() > 2**31
    found = joint.joint_attention(q, k, v)[:, -300:].contiguous()
    agrees(found, (q[:, :, -300:].contiguous(), k, v))


@pytest.mark.gpu
def test_offsets_of_keys_and_values_beyond_32_bits() -> None:
    """Of the last head, whose first key is beyond them."""
    q, k, v = inputs(70, 720_000, torch.bfloat16, "cuda", heads=48)
    assert k[:, :-1].numel() > 2**31
    found = joint.joint_attention(q, k, v)[:, :, -1:].contiguous()
    agrees(found, tuple(tensor[:, -1:].contiguous() for tensor in (q, k, v)))
