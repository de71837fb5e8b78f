"""Folded face attention: an error of at most twice that of PyTorch at the same precision."""

from typing import Any

import pytest
import torch
from accuracy import relative_error
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import face

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
EPS = 1e-5


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty_like", lambda x: torch.full_like(x, float("nan")))


def inputs(
    branches: int, tokens: int, channels: int, heads: int, slots: int, text: int, dtype: torch.dtype, device: str
) -> list[Any]:
    """Rows are far from zero, a few channels are outliers, and the face's contribution is as large as the rows."""
    x = torch.randn(branches, tokens, channels) + 2
    x[..., :: max(channels // 3, 1)] *= 30
    keys, values = torch.randn(channels, heads * slots) * (2 / channels**0.5), torch.randn(heads * slots, channels) * 8
    tensors = x, torch.randn(channels), torch.randn(channels), keys, values
    return [*(tensor.to(device, dtype) for tensor in tensors), heads, text, EPS]


def check_accuracy(arguments: list[Any]) -> None:
    found, plain = face.face_attention(*arguments), reference.face_attention(*arguments)
    in_float64: list[Any] = [item.double() if isinstance(item, Tensor) else item for item in arguments]
    exact = reference.face_attention(*in_float64)
    text = arguments[6]
    assert found.dtype == arguments[0].dtype
    assert torch.equal(found[:, :text], arguments[0][:, :text])
    if text < found.shape[1]:
        video = [tensor[:, text:] for tensor in (found, plain, exact)]
        assert relative_error(video[0], video[2]) <= 2 * relative_error(video[1], video[2])


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("branches", "tokens", "channels", "heads", "slots", "text"),
    [(1, 1, 64, 2, 32, 0), (1, 1, 64, 1, 16, 1), (2, 63, 96, 2, 32, 5), (1, 70, 200, 3, 32, 33), (2, 17, 24, 3, 4, 6),
     (1, 33, 3072, 16, 32, 3)],
)  # fmt: skip
def test_error_is_at_most_twice_that_of_pytorch(
    dtype: torch.dtype, branches: int, tokens: int, channels: int, heads: int, slots: int, text: int, device: str
) -> None:
    check_accuracy(inputs(branches, tokens, channels, heads, slots, text, dtype, device))


def test_a_long_sequence(device: str) -> None:
    check_accuracy(inputs(1, 1025, 64, 2, 32, 226, torch.bfloat16, device))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_size(dtype: torch.dtype) -> None:
    check_accuracy(inputs(2, 17_776, 3072, 16, 32, 226, dtype, "cuda"))


@pytest.mark.parametrize("architecture", [80, 90])
def test_every_tile(architecture: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(face, "architecture", lambda _: architecture)
    check_accuracy(inputs(1, 70, 300, 4, 32, 3, torch.float16, device))


def test_accuracy_with_a_mean_far_from_zero(device: str) -> None:
    arguments = inputs(1, 9, 256, 2, 32, 0, torch.float32, device)
    arguments[0] = arguments[0] * 0.01 + 50
    check_accuracy(arguments)


def test_large_scores(device: str) -> None:
    """Exponentials of scores above 128 · ln 2 exceed float32, those of differences from a head's largest do not."""
    arguments = inputs(1, 9, 64, 2, 16, 0, torch.float32, device)
    arguments[3] = arguments[3] * 100
    check_accuracy(arguments)


def test_an_empty_sequence(device: str) -> None:
    arguments = inputs(2, 0, 32, 1, 16, 0, torch.float16, device)
    assert face.face_attention(*arguments).shape == (2, 0, 32)


@pytest.mark.parametrize(
    ("place", "change", "problem"),
    [
        (0, torch.zeros(2, 16, 5).mT, r"x is non-contiguous torch.float32 \[2, 5, 16\]"),
        (1, torch.zeros(15), r"weight is torch.float32 \[15\] on cpu; wanted .*\[16\]"),
        (3, torch.zeros(16, 8).half(), r"keys is torch.float16 .*; wanted contiguous torch.float32 \[16, any\]"),
        (4, torch.zeros(16, 8), r"values is torch.float32 \[16, 8\] on cpu; wanted .*\[8, 16\]"),
        (5, 3, "keys have 8 columns; wanted 3 heads · a power of two"),
        (6, 6, "text is 6; wanted 0 to the 5 tokens of x"),
    ],
)
def test_invalid_arguments_raise(place: int, change: Any, problem: str) -> None:
    arguments = inputs(2, 5, 16, 2, 4, 2, torch.float32, "cpu")
    arguments[place] = change
    with pytest.raises(ValueError, match=problem):
        face.face_attention(*arguments)
