"""The projection's epilogue in 8 bits: numbers and scales equal the specification's up to rounding of sums."""

from typing import Any

import pytest
import torch
from accuracy import relative_error
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import ops, reference
from consisid_kernels.attention import qkv_8bit
from consisid_kernels.reference import FLOAT8

EPS = 1e-6
SHAPES = [(1, 1, 1, 64, 0), (2, 3, 63, 64, 5), (1, 13, 130, 64, 33), (1, 5, 50, 48, 50), (1, 3, 33, 16, 0)]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)

    def empty(shape: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        poison = {torch.int8: 99, torch.int32: 2**31 - 1}.get(dtype, float("nan"))
        return torch.full(shape, poison, dtype=dtype, device=device)

    monkeypatch.setattr(torch, "empty", empty)


def inputs(branches: int, heads: int, tokens: int, dim: int, text: int, dtype: torch.dtype, device: str) -> list[Any]:
    """Keys are far from zero, which smoothing removes, and a few channels are outliers."""
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


def statistics(module: Any, arguments: list[Any]) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = module.qkv_statistics(arguments[0], *arguments[2:])
    return found


def check_statistics(arguments: list[Any]) -> None:
    (mean, scale), (_, plain) = statistics(ops, arguments), statistics(reference, arguments)
    _, k, v = reference.qkv_epilogue(*in_float64(arguments))
    exact = v.abs().amax(dim=2).clamp(min=1e-12) / 448
    # Maxima of rounded inputs are exact in both, so only the quotient is rounded.
    assert relative_error(scale, exact) <= 2 * max(relative_error(plain, exact), 2**-24)
    # PyTorch adds in another order. In any order, n terms have an error of about √n · 2⁻²⁴ (Higham 2002, 4.2).
    rounding = k.shape[2] ** 0.5 * 2**-24 * k.abs().mean(dim=2).norm()
    assert float((mean.double() - k.mean(dim=2)).norm()) <= 2 * float(rounding)
    assert mean.dtype == scale.dtype == torch.float32


def steps(found: Tensor, wanted: Tensor) -> Tensor:
    """The number of 8-bit numbers between them, for numbers of the same sign."""
    return (found.view(torch.int8).int() - wanted.view(torch.int8).int()).abs()


def quantised(
    module: Any, arguments: list[Any], found: tuple[Tensor, Tensor], **changes: Any
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    options = {"blocks": (64, 64), "dtype": torch.int8} | changes
    results: tuple[tuple[Tensor, Tensor], ...] = module.qkv_epilogue_8bit(
        *arguments[:5], found, *arguments[5:], **options
    )
    q, k, v = results
    return q, k, v


def check_quantisation(arguments: list[Any], blocks: tuple[int, int], dtype: torch.dtype) -> None:
    mean, v_scale = statistics(reference, arguments)
    # Half of the mean: a single key less its own mean would be rounding error only.
    known = mean / 2, v_scale
    found, wanted = (quantised(module, arguments, known, blocks=blocks, dtype=dtype) for module in (ops, reference))
    q, k, _ = reference.qkv_epilogue(*in_float64(arguments))
    largest = 127 if dtype == torch.int8 else 448
    exact = (q, blocks[0]), (k - known[0].double()[:, :, None], blocks[1])
    for (numbers, scale), (plain, plain_scale), (truth, block) in zip(found[:2], wanted[:2], exact, strict=True):
        assert (numbers.dtype, numbers.shape) == (plain.dtype, plain.shape)
        true_scale = torch.stack([x.abs().amax(dim=(2, 3)) for x in torch.split(truth, block, dim=2)], dim=-1) / largest
        assert relative_error(scale, true_scale) <= 2 * max(relative_error(plain_scale, true_scale), 2**-24)
        apart = steps(numbers, plain)
        # float32 has an error of about 2⁻²⁰ of the largest number, so it rarely rounds to the other side of a tie.
        assert apart.max() <= 1
        assert apart.float().mean() <= max(largest * 2**-18, 2 / apart.numel())
    (numbers, scale), (plain, _) = found[2], wanted[2]
    assert scale is known[1]
    assert numbers.shape == plain.shape
    assert steps(numbers, plain).max() <= 1
    assert (steps(numbers, plain) > 0).float().mean() <= 1e-3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_statistics(dtype: torch.dtype, shape: tuple[int, int, int, int, int], device: str) -> None:
    check_statistics(inputs(*shape, dtype, device))


def test_statistics_of_a_long_sequence(device: str) -> None:
    check_statistics(inputs(1, 1, 2081, 16, 226, torch.bfloat16, device))


@pytest.mark.parametrize("dtype_8bit", [torch.int8, FLOAT8], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("shape", "blocks"), [*zip(SHAPES, [(64, 64), (16, 32), (128, 64), (32, 128), (16, 16)], strict=True)]
)
def test_numbers_and_scales(
    dtype_8bit: torch.dtype,
    dtype: torch.dtype,
    shape: tuple[int, int, int, int, int],
    blocks: tuple[int, int],
    device: str,
) -> None:
    check_quantisation(inputs(*shape, dtype, device), blocks, dtype_8bit)


def test_a_head_of_128_channels(device: str) -> None:
    check_quantisation(inputs(1, 2, 70, 128, 6, torch.bfloat16, device), (64, 32), torch.int8)


def test_error_of_joint_attention_is_that_of_the_specification(device: str) -> None:
    arguments = inputs(1, 2, 150, 64, 20, torch.bfloat16, device)
    exact = reference.joint_attention(*reference.qkv_epilogue(*in_float64(arguments)))
    found, plain = (
        reference.joint_attention_8bit(
            *quantised(module, arguments, statistics(module, arguments)), (64, 64), torch.float32
        )
        for module in (ops, reference)
    )
    assert relative_error(found, exact) <= 1.01 * relative_error(plain, exact)


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("dtype_8bit", [torch.int8, FLOAT8], ids=str)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", [0, 1, 2], ids=["q", "k", "v"])
def test_non_finite_inputs_reach_the_scales(part: int, number: float, dtype_8bit: torch.dtype, device: str) -> None:
    arguments = inputs(1, 2, 150, 64, 20, torch.bfloat16, device)
    arguments[0][0, 3, part * 128 + 5] = number
    found, wanted = (
        quantised(module, arguments, statistics(module, arguments), dtype=dtype_8bit) for module in (ops, reference)
    )
    for (numbers, scale), (plain, plain_scale) in zip(found, wanted, strict=True):
        assert torch.equal(scale.isfinite(), plain_scale.isfinite())
        assert torch.equal(scale.isnan(), plain_scale.isnan())
        assert torch.equal(numbers.float().isnan(), plain.float().isnan())
    assert not wanted[part][1].isfinite().all()


@pytest.mark.gpu
def test_full_size() -> None:
    arguments = inputs(2, 48, 17_776, 64, 226, torch.bfloat16, "cuda")
    check_statistics(arguments)
    check_quantisation(arguments, (128, 128), torch.int8)


def test_statistics_are_deterministic(device: str) -> None:
    arguments = inputs(1, 2, 100, 64, 6, torch.bfloat16, device)
    assert all(map(torch.equal, statistics(ops, arguments), statistics(ops, arguments)))


def test_channels_of_values_are_aligned_and_padded_with_zeros(device: str) -> None:
    arguments = inputs(1, 2, 35, 64, 6, torch.bfloat16, device)
    v = quantised(ops, arguments, statistics(reference, arguments))[2][0]
    assert v.stride() == (2 * 64 * 48, 64 * 48, 48, 1)
    assert v.as_strided((2 * 64, 48), (48, 1))[:, 35:].float().count_nonzero() == 0


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"blocks": (64, 256)}, r"blocks are \(64, 256\) .* two of \[16, 32, 64, 128\] at head size 16"),
        ({"dtype": torch.uint8}, r"torch.uint8; wanted .* one of \[torch.int8, torch.float8_e4m3fn\]"),
        ({"statistics": (torch.zeros(2, 2, 16), torch.zeros(2, 2, 9))}, r"v's scale is .* wanted .*\[2, 2, 16\]"),
    ],
)
def test_invalid_arguments_raise(changes: dict[str, Any], problem: str) -> None:
    arguments = inputs(2, 2, 9, 16, 3, torch.float32, "cpu")
    known = changes.pop("statistics", None) or statistics(reference, arguments)
    with pytest.raises(ValueError, match=problem):
        quantised(ops, arguments, known, **changes)


def test_a_gpu_without_e4m3_raises(monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = inputs(2, 2, 9, 16, 3, torch.float32, "cpu")
    monkeypatch.setattr(qkv_8bit, "architecture", lambda _: 80)
    with pytest.raises(ValueError, match=r"compute capability 8\.0 has no E4M3 numbers"):
        quantised(ops, arguments, statistics(reference, arguments))


def test_statistics_of_no_tokens_raise() -> None:
    with pytest.raises(ValueError, match="a mean needs at least one"):
        statistics(ops, inputs(2, 2, 0, 16, 0, torch.float32, "cpu"))
