"""The projection's epilogue: an error of at most twice that of PyTorch at the same precision; values are copied."""

from typing import Any

import pytest
import torch
from accuracy import relative_error

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import qkv

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
EPS = 1e-6


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty", lambda shape, **options: torch.full(shape, float("nan"), **options))


def inputs(branches: int, heads: int, tokens: int, dim: int, text: int, dtype: torch.dtype, device: str) -> list[Any]:
    """A few channels are outliers, and the two angles of a pair differ."""
    fused = torch.randn(branches, tokens, 3 * heads * dim) + 1
    fused[..., :: max(dim // 2 - 1, 1)] *= 30
    norms = [tuple(torch.randn(dim).to(device, dtype) for _ in range(2)) for _ in range(2)]
    angle = torch.randn(tokens - text, dim)
    tables = [table.to(device) for table in (angle.cos(), angle.sin())]
    return [fused.to(device, dtype), *norms, *tables, heads, EPS]


def in_float64(arguments: list[Any]) -> list[Any]:
    fused, q_norm, k_norm, cos, sin, heads, eps = arguments
    norms = [tuple(vector.double() for vector in norm) for norm in (q_norm, k_norm)]
    return [fused.double(), *norms, cos.double(), sin.double(), heads, eps]


def check_accuracy(arguments: list[Any]) -> None:
    found, plain, exact = (
        qkv.qkv_epilogue(*arguments),
        reference.qkv_epilogue(*arguments),
        reference.qkv_epilogue(*in_float64(arguments)),
    )
    for ours, theirs, truth in zip(found[:2], plain[:2], exact[:2], strict=True):
        assert ours.dtype == arguments[0].dtype
        assert relative_error(ours, truth) <= 2 * relative_error(theirs, truth)
    assert torch.equal(found[2], plain[2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("branches", "heads", "tokens", "dim", "text"),
    [(1, 1, 1, 64, 0), (1, 1, 1, 64, 1), (2, 3, 63, 64, 5), (1, 13, 40, 64, 33), (2, 2, 35, 128, 17), (1, 5, 50, 48, 7),
     (1, 3, 33, 16, 0), (1, 2, 30, 14, 30)],
)  # fmt: skip
def test_error_is_at_most_twice_that_of_pytorch(
    dtype: torch.dtype, branches: int, heads: int, tokens: int, dim: int, text: int, device: str
) -> None:
    check_accuracy(inputs(branches, heads, tokens, dim, text, dtype, device))


def test_a_long_sequence(device: str) -> None:
    check_accuracy(inputs(1, 1, 1025, 64, 226, torch.bfloat16, device))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "dim"), [(48, 64), (24, 128)])
def test_full_size(dtype: torch.dtype, heads: int, dim: int) -> None:
    check_accuracy(inputs(2, heads, 17_776, dim, 226, dtype, "cuda"))


def test_norms_in_float32(device: str) -> None:
    arguments = inputs(1, 2, 9, 64, 3, torch.bfloat16, device)
    norms: Any = [tuple(vector.float() for vector in norm) for norm in arguments[1:3]]
    found = qkv.qkv_epilogue(arguments[0], *norms, *arguments[3:])
    assert all(map(torch.equal, found, qkv.qkv_epilogue(*arguments)))


def test_an_empty_sequence(device: str) -> None:
    found = qkv.qkv_epilogue(*inputs(2, 2, 0, 16, 0, torch.float16, device))
    assert [tensor.shape for tensor in found] == [(2, 2, 0, 16)] * 3


@pytest.mark.parametrize(
    ("place", "change", "problem"),
    [
        (0, torch.zeros(2, 96, 9).mT, r"qkv is non-contiguous torch.float32 \[2, 9, 96\]"),
        (0, torch.zeros(2, 9, 90), "qkv has 90 channels; wanted 3 · 2 heads · an even number"),
        (1, (torch.zeros(16), torch.zeros(1)), r"q_norm's bias is torch.float32 \[1\] .* wanted .*\[16\]"),
        (3, torch.zeros(6, 16).double(), "cos is torch.float64"),
        (4, torch.zeros(5, 16), r"sin is torch.float32 \[5, 16\] on cpu; wanted .*\[6, 16\]"),
        (5, 0, "qkv has 96 channels; wanted 3 · 0 heads"),
        (5, 16, "qkv has heads of 2 channels; wanted 10 to 128"),
        (0, torch.zeros(2, 9, 6 * 130), "qkv has heads of 130 channels; wanted 10 to 128"),
    ],
)
def test_invalid_arguments_raise(place: int, change: Any, problem: str) -> None:
    arguments = inputs(2, 2, 9, 16, 3, torch.float32, "cpu")
    arguments[place] = change
    with pytest.raises(ValueError, match=problem):
        qkv.qkv_epilogue(*arguments)


def test_more_angles_than_tokens_raise() -> None:
    arguments = inputs(2, 2, 9, 16, 3, torch.float32, "cpu")
    arguments[3] = arguments[4] = torch.zeros(10, 16)
    with pytest.raises(ValueError, match="cos has 10 rows; wanted at most the 9 tokens of qkv"):
        qkv.qkv_epilogue(*arguments)
