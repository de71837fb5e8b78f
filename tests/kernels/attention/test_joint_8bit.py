"""8-bit attention: an error of at most twice that of the same arithmetic in PyTorch."""

import math
from typing import Any

import pytest
import torch
from accuracy import random_heads, relative_error
from float8_sums import products
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import ops, reference
from consisid_kernels.attention import joint_8bit

DTYPES_8BIT = [torch.int8, torch.float8_e4m3fn]
Pair = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)

    def poison(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        if not dtype.is_floating_point:
            return torch.full(shape, 99 if dtype == torch.int8 else 2**31 - 1, dtype=dtype, device=device)
        return torch.full(shape, float("nan"), device=device).to(dtype)

    monkeypatch.setattr(torch, "empty", poison)


def quantised(
    q: Tensor, k: Tensor, v: Tensor, blocks: tuple[int, int], dtype_8bit: torch.dtype
) -> tuple[Pair, Pair, Pair]:
    smooth = k - k.mean(dim=2, keepdim=True)
    tokens = (reference.quantise_tokens(x, n, dtype_8bit) for x, n in zip((q, smooth), blocks, strict=True))
    return *tokens, reference.quantise_channels(v)  # type: ignore[return-value]


def emulated(q: Pair, k: Pair, v: Pair, blocks: tuple[int, int], dtype: torch.dtype, columns: int = 64) -> Tensor:
    """The kernel's arithmetic in PyTorch, float32: with the running maximum and weights of at most 448.

    Products are exact on a CPU; on a GPU, E4M3 products are summed as by its tensor cores (`float8_sums`).
    """

    def times(a: Tensor, b: Tensor) -> Tensor:
        wide = a.float(), b.float()
        return products(*wide, a.shape[-1]) if a.is_cuda and a.dtype != torch.int8 else wide[0] @ wide[1].mT

    rows, keys = (
        scale.repeat_interleave(block, dim=2)[:, :, : x.shape[2], None]
        for (x, scale), block in zip((q, k), blocks, strict=True)
    )
    factor = math.log2(math.e) / math.sqrt(q[0].shape[-1])
    scores = times(q[0], k[0]) * (rows * keys.mT * factor)
    top = torch.full_like(scores[..., :1], -torch.inf)
    total, out = torch.zeros_like(top), torch.zeros(*scores.shape[:3], v[0].shape[2], device=scores.device)
    for part, values in zip(scores.split(columns, dim=-1), v[0].float().split(columns, dim=-1), strict=True):
        new = torch.maximum(top, part.amax(dim=-1, keepdim=True))
        weights, shrink = torch.exp2(part - (new - math.log2(448))), torch.exp2(top - new)
        total = total * shrink + weights.sum(dim=-1, keepdim=True)
        weights_8bit = weights.clamp(max=448).to(torch.float8_e4m3fn)
        out, top = out * shrink + times(weights_8bit, values), new
    return (out / total * v[1][:, :, None]).transpose(1, 2).to(dtype)


@pytest.mark.parametrize("dtype_8bit", DTYPES_8BIT, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize(
    ("branches", "queries", "keys", "size", "blocks"),
    [
        (1, 1, 1, 64, (128, 128)),
        (2, 63, 63, 64, (128, 128)),
        (1, 226, 226, 128, (128, 64)),
        (1, 40, 1025, 64, (16, 32)),
        (1, 226, 640, 64, (100, 128)),
        (1, 70, 198, 128, (128, 128)),
    ],
    ids=str,
)
def test_error_is_at_most_twice_that_of_the_same_arithmetic_in_pytorch(
    dtype_8bit: torch.dtype,
    dtype: torch.dtype,
    branches: int,
    queries: int,
    keys: int,
    size: int,
    blocks: tuple[int, int],
    device: str,
) -> None:
    q, k, v = (random_heads(tokens, size, device, branches) for tokens in (queries, keys, keys))
    k += 5
    tensors = quantised(q, k, v, blocks, dtype_8bit)
    found = joint_8bit.joint_attention_8bit(*tensors, blocks, dtype)
    wanted = reference.joint_attention_8bit(*tensors, blocks, torch.float64)
    assert found.dtype == dtype and found.shape == (branches, queries, 2, size)
    assert relative_error(found, wanted) <= 2 * relative_error(emulated(*tensors, blocks, dtype), wanted)
    exact = reference.joint_attention(q.double(), k.double(), v.double())
    assert relative_error(found, exact) <= 2 * relative_error(wanted.to(dtype), exact)


@pytest.mark.parametrize("rising", [True, False], ids=["rising", "falling"])
def test_a_moving_maximum_saturates_no_weight(rising: bool, device: str) -> None:
    blocks, keys = (128, 32), 512
    q = torch.ones(1, 1, 16, 64, device=device)
    ramp = torch.linspace(0, 6, keys, device=device)
    k = (ramp if rising else ramp.flip(0))[None, None, :, None] * torch.ones(64, device=device)
    v = random_heads(keys, 64, device)[:, :1]
    tensors = reference.quantise_tokens(q, 128), reference.quantise_tokens(k, 32), reference.quantise_channels(v)
    found = joint_8bit.joint_attention_8bit(*tensors, blocks, torch.float32)
    wanted = reference.joint_attention_8bit(*tensors, blocks, torch.float64)
    assert relative_error(found, wanted) <= 2 * relative_error(
        emulated(*tensors, blocks, torch.float32, columns=32), wanted
    )


@pytest.mark.parametrize("dtype_8bit", DTYPES_8BIT, ids=str)
def test_the_largest_weight_is_not_rounded(dtype_8bit: torch.dtype, device: str) -> None:
    """One key's score is 60 above the others, so the result is its value. A saturated weight would make it smaller."""
    q, k, v = random_heads(5, 64, device), torch.zeros(1, 2, 200, 64, device=device), random_heads(200, 64, device)
    k[:, :, 150] = q[:, :, 2] * 60 * 8 / q[:, :, 2].square().sum(dim=-1, keepdim=True)
    tensors = (*(reference.quantise_tokens(x, 128, dtype_8bit) for x in (q, k)), reference.quantise_channels(v))
    found = joint_8bit.joint_attention_8bit(*tensors, (128, 128), torch.float32)[:, 2]
    stored, scale = tensors[2]
    # Exponents near 100 have a rounding error of at most 2^-18, which is the relative error of the weight.
    torch.testing.assert_close(found, stored[..., 150].float() * scale, rtol=2**-17, atol=0)


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype_8bit", DTYPES_8BIT, ids=str)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["q", "k", "v"])
def test_non_finite_inputs_reach_the_output(which: str, number: float, dtype_8bit: torch.dtype, device: str) -> None:
    """As in the specification: from q its block of queries, from k every row, from v its channel."""
    tensors = {name: random_heads(1100, 64, device) for name in "qkv"}
    # Early, so that later blocks could hide it.
    tensors[which][0, 1, 3, 7] = number
    tensors["q"] = tensors["q"][:, :, :40].contiguous()
    blocks = (32, 64)

    def attention(module: Any) -> Tensor:
        q, k = (module.quantise_tokens(tensors[name], n, dtype_8bit) for name, n in zip("qk", blocks, strict=True))
        found: Tensor = module.joint_attention_8bit(q, k, module.quantise_channels(tensors["v"]), blocks, torch.float32)
        return found

    found, wanted = attention(ops), attention(reference)
    assert not wanted.isfinite().all()
    assert torch.equal(found.isfinite(), wanted.isfinite())


def test_padded_rows_of_values(device: str) -> None:
    q, k, v = (random_heads(50, 64, device) for _ in range(3))
    tensors = ops.quantise_tokens(q, 64), ops.quantise_tokens(k, 64)
    padded, scale = ops.quantise_channels(v)
    assert not padded.is_contiguous()
    found = [
        joint_8bit.joint_attention_8bit(*tensors, (values, scale), (64, 64), torch.float16)
        for values in (padded, padded.contiguous())
    ]
    assert torch.equal(*found)


def test_two_runs_are_bit_identical(device: str) -> None:
    x = random_heads(150, 64, device)
    tensors = quantised(x, x, x, (128, 128), torch.int8)
    assert torch.equal(*(joint_8bit.joint_attention_8bit(*tensors, (128, 128), torch.bfloat16) for _ in range(2)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda q, k, v: (((q[0].mT, q[1]), k, v), (32, 32)), r"q is \[1, 2, 64, 40\]"),
        (lambda q, k, v: (((q[0].float(), q[1]), k, v), (32, 32)), "q is torch.float32"),
        (lambda q, k, v: ((q, (k[0].view(torch.float8_e4m3fn), k[1]), v), (32, 32)), "k is torch.float8_e4m3fn"),
        (lambda q, k, v: ((q, (k[0][:, :1], k[1]), v), (32, 32)), "k is "),
        (lambda q, k, v: ((q, k, v), (32, 16)), "the second a multiple of 32"),
        (lambda q, k, v: ((q, k, v), (32, 64)), "the scale of k"),
        (lambda q, k, v: ((q, k, (v[0].mT, v[1])), (32, 32)), r"v is torch.float8_e4m3fn \[1, 2, 40, 64\]"),
        (lambda q, k, v: ((q, k, (v[0], v[1][:, :1])), (32, 32)), "the scale of v"),
        (lambda q, k, v: ((q, (k[0][:, :, :0], k[1]), v), (32, 32)), "0 keys"),
    ],
)
def test_invalid_arguments_raise(change, message: str, device: str) -> None:  # type: ignore[no-untyped-def]
    x = random_heads(40, 64, device)
    tensors = quantised(x, x, x, (32, 32), torch.int8)
    arguments, blocks = change(*tensors)
    with pytest.raises(ValueError, match=message):
        joint_8bit.joint_attention_8bit(*arguments, blocks, torch.bfloat16)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype_8bit", DTYPES_8BIT, ids=str)
@pytest.mark.parametrize("size", [64, 128])
def test_full_size(dtype_8bit: torch.dtype, size: int) -> None:
    """Compares the last block of queries of the last head, where offsets are largest."""
    blocks, tokens = (128, 128), 17_776
    q, k, v = (torch.randn(2, 48, tokens, size, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    tensors = (
        ops.quantise_tokens(q, blocks[0], dtype_8bit),
        ops.quantise_tokens(k, blocks[1], dtype_8bit),
        ops.quantise_channels(v),
    )
    found = joint_8bit.joint_attention_8bit(*tensors, blocks, torch.bfloat16)
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = tensors
    last = (slice(1, 2), slice(47, 48))
    rows = slice(tokens // 128 * 128, tokens)
    part = (q8[last][:, :, rows], q_scale[last][:, :, -1:]), (k8[last], k_scale[last]), (v8[last], v_scale[last])
    wanted = reference.joint_attention_8bit(*part, blocks, torch.float64)
    assert relative_error(found[1:2, rows, 47:48], wanted) <= 2 * relative_error(
        emulated(*part, blocks, torch.bfloat16), wanted
    )
