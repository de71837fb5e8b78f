"""The projection's epilogue: at most twice PyTorch's own error at the same precision, and values as they were."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import qkv

# Triton's interpreter counts a loop over run-time bounds so.
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
EPS = 1e-6


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty", lambda shape, **options: torch.full(shape, float("nan"), **options))


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def inputs(branches: int, heads: int, tokens: int, dim: int, text: int, dtype: torch.dtype, device: str) -> list[Any]:
    """With a few channels far from the rest, and angles that differ within a pair."""
    fused = torch.randn(branches, tokens, 3 * heads * dim) + 1
    fused[..., :: max(dim // 2 - 1, 1)] *= 30
    norms = [tuple(torch.randn(dim).to(device, dtype) for _ in range(2)) for _ in range(2)]
    angle = torch.randn(tokens - text, dim)
    tables = [table.to(device) for table in (angle.cos(), angle.sin())]
    return [fused.to(device, dtype), *norms, *tables, heads, EPS]


def wide(made: list[Any]) -> list[Any]:
    fused, q_norm, k_norm, cos, sin, heads, eps = made
    norms = [tuple(vector.double() for vector in norm) for norm in (q_norm, k_norm)]
    return [fused.double(), *norms, cos.double(), sin.double(), heads, eps]


def agrees(made: list[Any]) -> None:
    found, plain, exact = qkv.qkv_epilogue(*made), reference.qkv_epilogue(*made), reference.qkv_epilogue(*wide(made))
    for ours, theirs, truth in zip(found[:2], plain[:2], exact[:2], strict=True):
        assert ours.dtype == made[0].dtype
        assert error(ours, truth) <= 2 * error(theirs, truth)
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
    agrees(inputs(branches, heads, tokens, dim, text, dtype, device))


def test_a_long_sequence(device: str) -> None:
    agrees(inputs(1, 1, 1025, 64, 226, torch.bfloat16, device))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("heads", "dim"), [(48, 64), (24, 128)])
def test_the_network_s_size(dtype: torch.dtype, heads: int, dim: int) -> None:
    agrees(inputs(2, heads, 17_776, dim, 226, dtype, "cuda"))


def test_norms_may_be_wider_than_the_projection(device: str) -> None:
    made = inputs(1, 2, 9, 64, 3, torch.bfloat16, device)
    norms: Any = [tuple(vector.float() for vector in norm) for norm in made[1:3]]
    found = qkv.qkv_epilogue(made[0], *norms, *made[3:])
    assert all(map(torch.equal, found, qkv.qkv_epilogue(*made)))


def test_an_empty_sequence_is_left_alone(device: str) -> None:
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
def test_what_does_not_fit_is_refused(place: int, change: Any, problem: str) -> None:
    made = inputs(2, 2, 9, 16, 3, torch.float32, "cpu")
    made[place] = change
    with pytest.raises(ValueError, match=problem):
        qkv.qkv_epilogue(*made)


def test_more_angles_than_tokens_are_refused() -> None:
    made = inputs(2, 2, 9, 16, 3, torch.float32, "cpu")
    made[3] = made[4] = torch.zeros(10, 16)
    with pytest.raises(ValueError, match="cos has 10 rows; wanted at most the 9 tokens of qkv"):
        qkv.qkv_epilogue(*made)
