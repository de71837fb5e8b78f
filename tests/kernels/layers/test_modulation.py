"""Modulated norm and gated residual: an error of at most twice that of PyTorch at the same precision."""

from collections.abc import Callable

import pytest
import torch
from accuracy import relative_error
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.layers import modulation

DTYPES = [torch.float16, torch.bfloat16, torch.float32]
STEPS, EPS = 3, 1e-5


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty_like", lambda x: torch.full_like(x, float("nan")))


def inputs(shape: tuple[int, int, int], dtype: torch.dtype, device: str) -> dict[str, Tensor]:
    """A few channels are outliers, as in the network's residual stream."""
    x, y = torch.randn(2, *shape)
    x[..., :: max(shape[2] // 3, 1)] *= 100
    arguments = {"x": x + 3, "y": y, "weight": torch.randn(shape[2]), "bias": torch.randn(shape[2])}
    arguments |= {name: torch.randn(STEPS, 6, shape[2]) for name in ("modulation", "next_modulation")}
    step = torch.tensor([1], dtype=torch.int32, device=device)
    return {name: tensor.to(device, dtype) for name, tensor in arguments.items()} | {"step": step}


def in_float64(arguments: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in arguments.items()}


def modulated_norm(module: object, arguments: dict[str, Tensor], text: int) -> tuple[Tensor, ...]:
    names = ("x", "weight", "bias", "modulation", "step")
    return (module.modulated_norm(*(arguments[name] for name in names), text, EPS),)  # type: ignore[attr-defined]


def gated_residual(module: object, arguments: dict[str, Tensor], text: int) -> tuple[Tensor, ...]:
    names = ("x", "y", "modulation", "step")
    return (module.gated_residual(*(arguments[name] for name in names), text),)  # type: ignore[attr-defined]


def gated_residual_norm(module: object, arguments: dict[str, Tensor], text: int) -> tuple[Tensor, ...]:
    names = ("x", "y", "modulation", "weight", "bias", "next_modulation", "step")
    found: tuple[Tensor, ...] = module.gated_residual_norm(*(arguments[name] for name in names), text, EPS)  # type: ignore[attr-defined]
    return found


KERNELS = [modulated_norm, gated_residual, gated_residual_norm]
Kernel = Callable[[object, dict[str, Tensor], int], tuple[Tensor, ...]]


def check_accuracy(kernel: Kernel, arguments: dict[str, Tensor], text: int) -> None:
    found, plain = kernel(modulation, arguments, text), kernel(reference, arguments, text)
    exact = kernel(reference, in_float64(arguments), text)
    for ours, theirs, truth in zip(found, plain, exact, strict=True):
        assert ours.dtype == arguments["x"].dtype
        assert relative_error(ours, truth) <= 2 * relative_error(theirs, truth)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("shape", "text"),
    [((1, 1, 64), 0), ((1, 1, 64), 1), ((2, 63, 96), 5), ((1, 66, 48), 66), ((1, 40, 100), 8), ((2, 21, 3072), 3)],
    ids=str,
)
def test_error_is_at_most_twice_that_of_pytorch(
    kernel: Kernel, dtype: torch.dtype, shape: tuple[int, int, int], text: int, device: str
) -> None:
    check_accuracy(kernel, inputs(shape, dtype, device), text)


def test_a_long_sequence(device: str) -> None:
    check_accuracy(gated_residual_norm, inputs((1, 1025, 16), torch.bfloat16, device), 226)


@pytest.mark.gpu
@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_size(kernel: Kernel, dtype: torch.dtype) -> None:
    check_accuracy(kernel, inputs((2, 17_776, 3072), dtype, "cuda"), 226)


def test_the_fused_kernel_equals_its_parts(device: str) -> None:
    arguments = inputs((2, 19, 96), torch.bfloat16, device)
    x, normed = gated_residual_norm(modulation, arguments, 4)
    assert torch.equal(x, *gated_residual(modulation, arguments, 4))
    following = arguments | {"x": x, "modulation": arguments["next_modulation"]}
    assert torch.equal(normed, *modulated_norm(modulation, following, 4))


def test_programs_of_text_do_not_write_video(device: str) -> None:
    """Two programs that write the same row with different vectors would race, which a single run may not show."""
    arguments = inputs((1, 20, 16), torch.float32, device)
    out = torch.empty_like(arguments["x"])
    pointers = (out, arguments["x"], arguments["y"], arguments["modulation"], arguments["step"])
    modulation._gated_residual[1, 1](*pointers, 20, 3, CHANNELS=16, BLOCK=16, ROWS=8, STAGES=1)
    assert out.isnan().all(dim=2).tolist() == [[False] * 3 + [True] * 17]


def test_a_norm_without_weights(device: str) -> None:
    arguments = inputs((1, 9, 96), torch.float16, device)
    plain = arguments | {"weight": torch.ones_like(arguments["weight"]), "bias": torch.zeros_like(arguments["bias"])}
    arguments |= {"weight": None, "bias": None}  # type: ignore[dict-item]
    for kernel in (modulated_norm, gated_residual_norm):
        assert all(map(torch.equal, kernel(modulation, arguments, 2), kernel(modulation, plain, 2)))


def test_vectors_in_float32(device: str) -> None:
    arguments = inputs((1, 9, 96), torch.bfloat16, device)
    names = ("weight", "bias", "modulation", "next_modulation")
    for kernel in KERNELS:
        found = kernel(modulation, arguments | {name: arguments[name].float() for name in names}, 2)
        assert all(map(torch.equal, found, kernel(modulation, arguments, 2)))


def test_an_empty_sequence(device: str) -> None:
    found = gated_residual_norm(modulation, inputs((2, 0, 16), torch.float16, device), 0)
    assert [tensor.shape for tensor in found] == [(2, 0, 16), (2, 0, 16)]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"x": torch.zeros(2, 16, 5).mT}, r"x is non-contiguous torch.float32 \[2, 5, 16\]"),
        ({"x": torch.zeros(2, 5, 16).double()}, "wanted contiguous torch.float16 or torch.bfloat16 or torch.float32"),
        ({"y": torch.zeros(2, 5, 16).half()}, r"y is torch.float16 .* wanted contiguous torch.float32 \[2, 5, 16\]"),
        ({"weight": None}, "one of weight and bias is None; give both or neither"),
        ({"bias": torch.zeros(15)}, r"bias is torch.float32 \[15\] on cpu; wanted .*\[16\]"),
        ({"next_modulation": torch.zeros(2, 3, 16)}, r"next_modulation .* \[any, 6, 16\]"),
        ({"step": torch.zeros(1)}, r"step is torch.float32 \[1\] on cpu; wanted contiguous torch.int32 \[1\]"),
    ],
)
def test_invalid_arguments_raise(change: dict[str, Tensor], problem: str) -> None:
    arguments = inputs((2, 5, 16), torch.float32, "cpu") | change
    with pytest.raises(ValueError, match=problem):
        gated_residual_norm(modulation, arguments, 2)


def test_more_text_than_tokens_raises() -> None:
    with pytest.raises(ValueError, match="text is 6; wanted 0 to the 5 tokens of x"):
        gated_residual(modulation, inputs((2, 5, 16), torch.float32, "cpu"), 6)
