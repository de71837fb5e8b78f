"""The projection's epilogue in 8 bits: the numbers and scales of the specification, whatever the order of sums."""

from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.attention import qkv_8bit
from consisid_kernels.reference import FLOAT8

# Triton's interpreter counts a loop over run-time bounds so.
EPS = 1e-6
SHAPES = [(1, 1, 1, 64, 0), (2, 3, 63, 64, 5), (1, 13, 130, 64, 33), (1, 5, 50, 48, 50), (1, 3, 33, 16, 0)]


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)

    def empty(shape: Any, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        poison = {torch.int8: 99, torch.int32: 2**31 - 1}.get(dtype, float("nan"))
        return torch.full(shape, poison, dtype=dtype, device=device)

    monkeypatch.setattr(torch, "empty", empty)


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


def inputs(branches: int, heads: int, tokens: int, dim: int, text: int, dtype: torch.dtype, device: str) -> list[Any]:
    """With keys far from zero, as smoothing finds them, and a few channels far from the rest."""
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


def statistics(module: Any, made: list[Any]) -> tuple[Tensor, Tensor]:
    found: tuple[Tensor, Tensor] = module.qkv_statistics(made[0], *made[2:])
    return found


def agree(made: list[Any]) -> None:
    (mean, scale), (_, plain) = statistics(qkv_8bit, made), statistics(reference, made)
    _, k, v = reference.qkv_epilogue(*wide(made))
    exact = v.abs().amax(dim=2).clamp(min=1e-12) / 448
    # Maxima of rounded inputs are exact in both; what is left is the quotient's last bit.
    assert error(scale, exact) <= 2 * max(error(plain, exact), 2**-24)
    # PyTorch adds in another order. In any, n terms round to about √n · 2⁻²⁴ of their magnitudes (Higham 2002, 4.2).
    rounding = k.shape[2] ** 0.5 * 2**-24 * k.abs().mean(dim=2).norm()
    assert float((mean.double() - k.mean(dim=2)).norm()) <= 2 * float(rounding)
    assert mean.dtype == scale.dtype == torch.float32


def steps(found: Tensor, wanted: Tensor) -> Tensor:
    """How many 8-bit numbers apart, of one sign or small."""
    return (found.view(torch.int8).int() - wanted.view(torch.int8).int()).abs()


def quantised(
    module: Any, made: list[Any], found: tuple[Tensor, Tensor], **changes: Any
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    options = {"blocks": (64, 64), "dtype": torch.int8} | changes
    results: tuple[tuple[Tensor, Tensor], ...] = module.qkv_epilogue_8bit(*made[:5], found, *made[5:], **options)
    q, k, v = results
    return q, k, v


def quantises(made: list[Any], blocks: tuple[int, int], dtype: torch.dtype) -> None:
    mean, v_scale = statistics(reference, made)
    # Half of it: what is left of a single key less its mean would be rounding alone.
    known = mean / 2, v_scale
    found, wanted = (quantised(module, made, known, blocks=blocks, dtype=dtype) for module in (qkv_8bit, reference))
    q, k, _ = reference.qkv_epilogue(*wide(made))
    largest = 127 if dtype == torch.int8 else 448
    exact = (q, blocks[0]), (k - known[0].double()[:, :, None], blocks[1])
    for (numbers, scale), (plain, plain_scale), (truth, block) in zip(found[:2], wanted[:2], exact, strict=True):
        assert (numbers.dtype, numbers.shape) == (plain.dtype, plain.shape)
        true_scale = torch.stack([x.abs().amax(dim=(2, 3)) for x in torch.split(truth, block, dim=2)], dim=-1) / largest
        assert error(scale, true_scale) <= 2 * max(error(plain_scale, true_scale), 2**-24)
        apart = steps(numbers, plain)
        # float32 before rounding is good to some 2⁻²⁰ of the largest: so rarely does it fall on another side of a tie.
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
    agree(inputs(*shape, dtype, device))


def test_statistics_of_a_long_sequence(device: str) -> None:
    agree(inputs(1, 1, 2081, 16, 226, torch.bfloat16, device))


@pytest.mark.parametrize("narrow", [torch.int8, FLOAT8], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
@pytest.mark.parametrize(
    ("shape", "blocks"), [*zip(SHAPES, [(64, 64), (16, 32), (128, 64), (32, 128), (16, 16)], strict=True)]
)
def test_numbers_and_scales(
    narrow: torch.dtype, dtype: torch.dtype, shape: tuple[int, int, int, int, int], blocks: tuple[int, int], device: str
) -> None:
    quantises(inputs(*shape, dtype, device), blocks, narrow)


def test_a_head_of_128_channels(device: str) -> None:
    quantises(inputs(1, 2, 70, 128, 6, torch.bfloat16, device), (64, 32), torch.int8)


def test_the_joint_attention_s_error_is_that_of_the_specification(device: str) -> None:
    made = inputs(1, 2, 150, 64, 20, torch.bfloat16, device)
    exact = reference.joint_attention(*reference.qkv_epilogue(*wide(made)))
    found, plain = (
        reference.joint_attention_8bit(*quantised(module, made, statistics(module, made)), (64, 64), torch.float32)
        for module in (qkv_8bit, reference)
    )
    assert error(found, exact) <= 1.01 * error(plain, exact)


@pytest.mark.filterwarnings("ignore:(invalid value|divide by zero) encountered:RuntimeWarning")
@pytest.mark.parametrize("narrow", [torch.int8, FLOAT8], ids=str)
@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize("part", [0, 1, 2], ids=["q", "k", "v"])
def test_what_is_not_finite_is_seen_in_the_scales(part: int, number: float, narrow: torch.dtype, device: str) -> None:
    made = inputs(1, 2, 150, 64, 20, torch.bfloat16, device)
    made[0][0, 3, part * 128 + 5] = number
    found, wanted = (
        quantised(module, made, statistics(module, made), dtype=narrow) for module in (qkv_8bit, reference)
    )
    for (numbers, scale), (plain, plain_scale) in zip(found, wanted, strict=True):
        assert torch.equal(scale.isfinite(), plain_scale.isfinite())
        assert torch.equal(scale.isnan(), plain_scale.isnan())
        assert torch.equal(numbers.float().isnan(), plain.float().isnan())
    assert not wanted[part][1].isfinite().all()


@pytest.mark.gpu
def test_the_network_s_size() -> None:
    made = inputs(2, 48, 17_776, 64, 226, torch.bfloat16, "cuda")
    agree(made)
    quantises(made, (128, 128), torch.int8)


def test_results_are_the_same_from_run_to_run(device: str) -> None:
    made = inputs(1, 2, 100, 64, 6, torch.bfloat16, device)
    assert all(map(torch.equal, statistics(qkv_8bit, made), statistics(qkv_8bit, made)))


def test_channels_of_values_start_at_multiples_of_16_and_end_in_zeros(device: str) -> None:
    made = inputs(1, 2, 35, 64, 6, torch.bfloat16, device)
    v = quantised(qkv_8bit, made, statistics(reference, made))[2][0]
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
def test_what_does_not_fit_is_refused(changes: dict[str, Any], problem: str) -> None:
    made = inputs(2, 2, 9, 16, 3, torch.float32, "cpu")
    known = changes.pop("statistics", None) or statistics(reference, made)
    with pytest.raises(ValueError, match=problem):
        quantised(qkv_8bit, made, known, **changes)


def test_a_gpu_without_e4m3_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    made = inputs(2, 2, 9, 16, 3, torch.float32, "cpu")
    monkeypatch.setattr(qkv_8bit, "architecture", lambda _: 80)
    with pytest.raises(ValueError, match=r"compute capability 8\.0 has no E4M3 numbers"):
        quantised(qkv_8bit, made, statistics(reference, made))


def test_no_tokens_have_no_mean() -> None:
    with pytest.raises(ValueError, match="a mean needs at least one"):
        statistics(qkv_8bit, inputs(2, 2, 0, 16, 0, torch.float32, "cpu"))
