"""Quantisation bit for bit; 8-bit attention at most twice as wrong as the same arithmetic in plain PyTorch."""

import math
import os
import re
import subprocess
import sys
from typing import Any

import pytest
import torch
from float8_sums import products
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import joint_8bit

# Triton's interpreter counts a loop over run-time bounds so.
NARROW = [torch.int8, torch.float8_e4m3fn]
Pair = tuple[Tensor, Tensor]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)

    def poison(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        if not dtype.is_floating_point:
            return torch.full(shape, 99 if dtype == torch.int8 else 2**31 - 1, dtype=dtype, device=device)
        return torch.full(shape, float("nan"), device=device).to(dtype)

    monkeypatch.setattr(torch, "empty", poison)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def heads(tokens: int, size: int, device: str, branches: int = 1) -> Tensor:
    """Channels of very different size, as LayerNorm's weights make them, and a few tokens far from the rest."""
    x = torch.randn(branches, 2, tokens, size) * torch.logspace(-1, 0.5, size)[torch.randperm(size)]
    x[:, :, :: max(tokens // 5, 1)] *= 4
    return x.to(device)


def quantised(q: Tensor, k: Tensor, v: Tensor, blocks: tuple[int, int], narrow: torch.dtype) -> tuple[Pair, Pair, Pair]:
    smooth = k - k.mean(dim=2, keepdim=True)
    tokens = (reference.quantise_tokens(x, n, narrow) for x, n in zip((q, smooth), blocks, strict=True))
    return *tokens, reference.quantise_channels(v)  # type: ignore[return-value]


def emulated(q: Pair, k: Pair, v: Pair, blocks: tuple[int, int], dtype: torch.dtype, columns: int = 64) -> Tensor:
    """The kernel's arithmetic in plain PyTorch, float32: the maximum so far, weights of 448 at most.

    Products are exact on a CPU; on a GPU those of E4M3 numbers are summed as its tensor cores do (`float8_sums`).
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
        narrow = weights.clamp(max=448).to(torch.float8_e4m3fn)
        out, top = out * shrink + times(narrow, values), new
    return (out / total * v[1][:, :, None]).transpose(1, 2).to(dtype)


@pytest.mark.parametrize("narrow", NARROW, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("tokens", "block"), [(1, 128), (63, 16), (300, 128), (226, 100)])
@pytest.mark.parametrize("size", [64, 128])
def test_tokens_are_quantised_bit_for_bit(
    narrow: torch.dtype, dtype: torch.dtype, tokens: int, block: int, size: int, device: str
) -> None:
    x = heads(tokens, size, device, branches=2).to(dtype)
    x[0, 0, -1] = 0
    found, scale = joint_8bit.quantise_tokens(x, block, narrow)
    wanted, wanted_scale = reference.quantise_tokens(x, block, narrow)
    assert torch.equal(found.view(torch.uint8), wanted.view(torch.uint8))
    assert torch.equal(scale, wanted_scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("tokens", "size"), [(1, 64), (63, 128), (1025, 64)])
def test_channels_are_quantised_bit_for_bit(dtype: torch.dtype, tokens: int, size: int, device: str) -> None:
    x = heads(tokens, size, device).to(dtype)
    x[0, 1, :, 5] = 0
    found, scale = joint_8bit.quantise_channels(x)
    wanted, wanted_scale = reference.quantise_channels(x)
    assert torch.equal(found.contiguous().view(torch.uint8), wanted.view(torch.uint8))
    assert torch.equal(scale, wanted_scale)
    assert found.stride(2) % 16 == 0


@pytest.mark.parametrize("narrow", NARROW, ids=str)
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
    narrow: torch.dtype,
    dtype: torch.dtype,
    branches: int,
    queries: int,
    keys: int,
    size: int,
    blocks: tuple[int, int],
    device: str,
) -> None:
    q, k, v = (heads(tokens, size, device, branches) for tokens in (queries, keys, keys))
    k += 5
    tensors = quantised(q, k, v, blocks, narrow)
    found = joint_8bit.joint_attention_8bit(*tensors, blocks, dtype)
    wanted = reference.joint_attention_8bit(*tensors, blocks, torch.float64)
    assert found.dtype == dtype and found.shape == (branches, queries, 2, size)
    assert error(found, wanted) <= 2 * error(emulated(*tensors, blocks, dtype), wanted)
    exact = reference.joint_attention(q.double(), k.double(), v.double())
    assert error(found, exact) <= 2 * error(wanted.to(dtype), exact)


@pytest.mark.parametrize("rising", [True, False], ids=["rising", "falling"])
def test_a_maximum_that_moves_from_block_to_block_saturates_nothing(rising: bool, device: str) -> None:
    blocks, keys = (128, 32), 512
    q = torch.ones(1, 1, 16, 64, device=device)
    ramp = torch.linspace(0, 6, keys, device=device)
    k = (ramp if rising else ramp.flip(0))[None, None, :, None] * torch.ones(64, device=device)
    v = heads(keys, 64, device)[:, :1]
    tensors = reference.quantise_tokens(q, 128), reference.quantise_tokens(k, 32), reference.quantise_channels(v)
    found = joint_8bit.joint_attention_8bit(*tensors, blocks, torch.float32)
    wanted = reference.joint_attention_8bit(*tensors, blocks, torch.float64)
    assert error(found, wanted) <= 2 * error(emulated(*tensors, blocks, torch.float32, columns=32), wanted)


@pytest.mark.parametrize("narrow", NARROW, ids=str)
def test_the_largest_weight_is_not_rounded(narrow: torch.dtype, device: str) -> None:
    """Its key alone is read, 60 above the others. A weight beyond 448 would bring back too little of it."""
    q, k, v = heads(5, 64, device), torch.zeros(1, 2, 200, 64, device=device), heads(200, 64, device)
    k[:, :, 150] = q[:, :, 2] * 60 * 8 / q[:, :, 2].square().sum(dim=-1, keepdim=True)
    tensors = (*(reference.quantise_tokens(x, 128, narrow) for x in (q, k)), reference.quantise_channels(v))
    found = joint_8bit.joint_attention_8bit(*tensors, (128, 128), torch.float32)[:, 2]
    stored, scale = tensors[2]
    # Exponents near 100 are rounded by 2^-18 at most, and that is the relative error of the weight beside 448.
    torch.testing.assert_close(found, stored[..., 150].float() * scale, rtol=2**-17, atol=0)


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("narrow", NARROW, ids=str)
@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("which", ["q", "k", "v"])
def test_what_is_not_finite_reaches_the_output(which: str, number: float, narrow: torch.dtype, device: str) -> None:
    """Of a block of queries, all rows: of a key, every row; of a value, its channel. As in the specification."""
    tensors = {name: heads(1100, 64, device) for name in "qkv"}
    # Among the first: what comes later must not cover it.
    tensors[which][0, 1, 3, 7] = number
    tensors["q"] = tensors["q"][:, :, :40].contiguous()
    blocks = (32, 64)

    def attention(module: Any) -> Tensor:
        q, k = (module.quantise_tokens(tensors[name], n, narrow) for name, n in zip("qk", blocks, strict=True))
        found: Tensor = module.joint_attention_8bit(q, k, module.quantise_channels(tensors["v"]), blocks, torch.float32)
        return found

    found, wanted = attention(joint_8bit), attention(reference)
    assert not wanted.isfinite().all()
    assert torch.equal(found.isfinite(), wanted.isfinite())


def test_rows_of_values_may_be_padded(device: str) -> None:
    q, k, v = (heads(50, 64, device) for _ in range(3))
    tensors = joint_8bit.quantise_tokens(q, 64), joint_8bit.quantise_tokens(k, 64)
    padded, scale = joint_8bit.quantise_channels(v)
    assert not padded.is_contiguous()
    found = [
        joint_8bit.joint_attention_8bit(*tensors, (values, scale), (64, 64), torch.float16)
        for values in (padded, padded.contiguous())
    ]
    assert torch.equal(*found)


def test_two_runs_are_bit_identical(device: str) -> None:
    x = heads(150, 64, device)
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
def test_other_inputs_are_refused(change, message: str, device: str) -> None:  # type: ignore[no-untyped-def]
    x = heads(40, 64, device)
    tensors = quantised(x, x, x, (32, 32), torch.int8)
    arguments, blocks = change(*tensors)
    with pytest.raises(ValueError, match=message):
        joint_8bit.joint_attention_8bit(*arguments, blocks, torch.bfloat16)


def test_other_inputs_are_not_quantised(device: str) -> None:
    x = heads(40, 64, device)
    with pytest.raises(ValueError, match=r"one of \(64, 128\)"):
        joint_8bit.quantise_tokens(x[..., :48].contiguous(), 32)
    with pytest.raises(ValueError, match="non-contiguous"):
        joint_8bit.quantise_channels(x[:, :, ::2])
    with pytest.raises(ValueError, match="block 0"):
        joint_8bit.quantise_tokens(x, 0)


def test_sums_of_float8_products_start_from_zero_in_the_tensor_cores() -> None:
    """And not from the sum so far; in a process without the interpreter's switch, which Triton reads at import."""
    code = """
from consisid_kernels import aot, attention_8bit
for variant in attention_8bit.VARIANTS:
    for architecture in {89, 90} & set(variant.architectures):
        if variant.name == "joint_attention_8bit/int8-d64-bf16":
            print(aot.compile_for(variant, architecture).asm["ttgir"])
"""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], env=environment, capture_output=True, text=True, check=True
    )
    products = [line for line in done.stdout.splitlines() if re.search("(tt.|_)dot %", line) and "f8E4M3FN" in line]
    sums = [re.search(r"dot %\S+, %\S+, (%\w+)", line) for line in products]
    assert sums and all(found is not None and found[1].startswith("%cst") for found in sums)


@pytest.mark.gpu
@pytest.mark.parametrize("narrow", NARROW, ids=str)
@pytest.mark.parametrize("size", [64, 128])
def test_a_whole_video(narrow: torch.dtype, size: int) -> None:
    """Rows of one block of the last head, where offsets are largest."""
    blocks, tokens = (128, 128), 17_776
    q, k, v = (torch.randn(2, 48, tokens, size, device="cuda", dtype=torch.bfloat16) for _ in range(3))
    tensors = (
        joint_8bit.quantise_tokens(q, blocks[0], narrow),
        joint_8bit.quantise_tokens(k, blocks[1], narrow),
        joint_8bit.quantise_channels(v),
    )
    found = joint_8bit.joint_attention_8bit(*tensors, blocks, torch.bfloat16)
    (q8, q_scale), (k8, k_scale), (v8, v_scale) = tensors
    last = (slice(1, 2), slice(47, 48))
    rows = slice(tokens // 128 * 128, tokens)
    part = (q8[last][:, :, rows], q_scale[last][:, :, -1:]), (k8[last], k_scale[last]), (v8[last], v_scale[last])
    wanted = reference.joint_attention_8bit(*part, blocks, torch.float64)
    assert error(found[1:2, rows, 47:48], wanted) <= 2 * error(emulated(*part, blocks, torch.bfloat16), wanted)
