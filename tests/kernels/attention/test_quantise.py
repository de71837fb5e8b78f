"""Quantisation is equal to the specification bit for bit."""

import pytest
import torch
from accuracy import random_heads
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import quantise

DTYPES_8BIT = [torch.int8, torch.float8_e4m3fn]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)

    def poison(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
        if not dtype.is_floating_point:
            return torch.full(shape, 99 if dtype == torch.int8 else 2**31 - 1, dtype=dtype, device=device)
        return torch.full(shape, float("nan"), device=device).to(dtype)

    monkeypatch.setattr(torch, "empty", poison)


@pytest.mark.parametrize("dtype_8bit", DTYPES_8BIT, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("tokens", "block"), [(1, 128), (63, 16), (300, 128), (226, 100)])
@pytest.mark.parametrize("size", [64, 128])
def test_tokens_are_quantised_bit_for_bit(
    dtype_8bit: torch.dtype, dtype: torch.dtype, tokens: int, block: int, size: int, device: str
) -> None:
    x = random_heads(tokens, size, device, branches=2).to(dtype)
    x[0, 0, -1] = 0
    found, scale = quantise.quantise_tokens(x, block, dtype_8bit)
    wanted, wanted_scale = reference.quantise_tokens(x, block, dtype_8bit)
    assert torch.equal(found.view(torch.uint8), wanted.view(torch.uint8))
    assert torch.equal(scale, wanted_scale)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize(("tokens", "size"), [(1, 64), (63, 128), (1025, 64)])
def test_channels_are_quantised_bit_for_bit(dtype: torch.dtype, tokens: int, size: int, device: str) -> None:
    x = random_heads(tokens, size, device).to(dtype)
    x[0, 1, :, 5] = 0
    found, scale = quantise.quantise_channels(x)
    wanted, wanted_scale = reference.quantise_channels(x)
    assert torch.equal(found.contiguous().view(torch.uint8), wanted.view(torch.uint8))
    assert torch.equal(scale, wanted_scale)
    assert found.stride(2) % 16 == 0


def test_invalid_arguments_raise(device: str) -> None:
    x = random_heads(40, 64, device)
    with pytest.raises(ValueError, match=r"one of \(64, 128\)"):
        quantise.quantise_tokens(x[..., :48].contiguous(), 32)
    with pytest.raises(ValueError, match="non-contiguous"):
        quantise.quantise_channels(x[:, :, ::2])
    with pytest.raises(ValueError, match="a block of at least one token"):
        quantise.quantise_tokens(x, 0)
