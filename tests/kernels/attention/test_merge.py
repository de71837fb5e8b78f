"""Merged attention: an error of at most twice that of PyTorch at the same precision."""

import pytest
import torch
from accuracy import attention_inputs, in_float64, relative_error
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import joint, merge

DTYPES = [torch.float16, torch.bfloat16, torch.float32]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: torch.full(shape, float("nan"), **options))


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_merge_of_partial_attention(dtype: torch.dtype, device: str) -> None:
    q, k, v = attention_inputs(70, 130, dtype, device, branches=2)
    shared = tuple(tensor[:1] for tensor in attention_inputs(70, 40, dtype, device))
    one, two = joint.partial_attention(q, k, v), joint.partial_attention(q[:1], *shared[1:])
    for parts in ((*one, *two), (*two, *one)):
        found = merge.merge_attention(*parts)
        exact = reference.merge_attention(*(part.double() for part in parts))
        theirs = reference.merge_attention(parts[0], parts[1].to(dtype), parts[2], parts[3].to(dtype))
        assert found.dtype == dtype
        assert relative_error(found, exact) <= 2 * relative_error(theirs, exact)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_video_shared_by_the_branches(dtype: torch.dtype, device: str) -> None:
    text = attention_inputs(9, 9, dtype, device, branches=2)
    video = attention_inputs(140, 140, dtype, device)
    found = merge.shared_joint_attention(text, video)
    exact = reference.shared_joint_attention(in_float64(text), in_float64(video))
    theirs = reference.shared_joint_attention(text, video)
    assert found.is_contiguous()
    assert relative_error(found, exact) <= 2 * relative_error(theirs, exact)
    q, k, v = (
        torch.cat((short, long.expand(2, -1, -1, -1)), 2)
        for short, long in zip(in_float64(text), in_float64(video), strict=True)
    )
    assert relative_error(exact, reference.joint_attention(q, k, v)) < 1e-12


@pytest.mark.parametrize("queries", [0, 9])
def test_empty_text(queries: int, device: str) -> None:
    q, k, v = attention_inputs(9, 9, torch.bfloat16, device, branches=2)
    text = q[:, :, :queries].contiguous(), k[:, :, :0].contiguous(), v[:, :, :0].contiguous()
    video = attention_inputs(70, 70, torch.bfloat16, device)
    found = merge.shared_joint_attention(text, video)
    exact = reference.shared_joint_attention(in_float64(text), in_float64(video))
    assert found.shape == exact.shape == (2, queries + 70, 2, 64)
    assert relative_error(found, exact) <= 2 * relative_error(reference.shared_joint_attention(text, video), exact)


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
def test_invalid_parts_raise(change: dict[str, Tensor], problem: str) -> None:
    part = torch.zeros(1, 5, 3, 64).transpose(1, 2)
    arguments = {
        "out": part,
        "denominator": torch.zeros(1, 3, 5),
        "other": part,
        "other_denominator": torch.zeros(1, 3, 5),
    }
    with pytest.raises(ValueError, match=problem):
        merge.merge_attention(**(arguments | change))


def test_video_of_two_branches_raises() -> None:
    text = attention_inputs(4, 4, torch.float32, "cpu", branches=2)
    with pytest.raises(ValueError, match=r"video's q is torch.float32 \[2, 2, 4, 64\] .* \[1, 2, any, 64\]"):
        merge.shared_joint_attention(text, text)
