"""Guidance and solver step: an error of at most twice that of PyTorch; noise that does not depend on the launch."""

import math
from typing import Any

import pytest
import torch
from accuracy import relative_error
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.layers import solver

# More elements than a program computes; no dimension is a multiple of its block.
SHAPE = (1, 13, 5, 7, 11)
SEED, STEP = -(2**40) - 5, 2


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty_like", lambda x: torch.full_like(x, float("nan")))


def inputs(branches: int, dtype: torch.dtype, device: str, shape: tuple[int, ...] = SHAPE) -> dict[str, Any]:
    arguments = {name: torch.randn(shape, device=device) for name in ("latents", "previous", "draw")}
    arguments["velocity"] = torch.randn(branches, *shape[1:], device=device).to(dtype)
    arguments["velocity"].flatten()[::97] *= 50
    arguments["coefficients"] = torch.randn(4, 8, device=device)
    arguments["seed"] = torch.tensor([SEED], device=device)
    return arguments | {"step": torch.tensor([STEP], dtype=torch.int32, device=device)}


def call(module: Any, arguments: dict[str, Any], counter: bool) -> tuple[Tensor, Tensor]:
    names = ["velocity", "latents", "previous", "seed" if counter else "draw", "coefficients", "step"]
    found: tuple[Tensor, Tensor] = getattr(module, "guided_step_counter" if counter else "guided_step")(
        *(arguments[name] for name in names)
    )
    return found


def check_accuracy(arguments: dict[str, Any], counter: bool) -> None:
    in_float64 = {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in arguments.items()}
    results = (
        call(solver, arguments, counter),
        call(reference, arguments, counter),
        call(reference, in_float64, counter),
    )
    for found, plain, exact in zip(*results, strict=True):
        assert found.dtype == torch.float32
        assert relative_error(found, exact) <= 2 * relative_error(plain, exact)


@pytest.mark.parametrize("counter", [False, True])
@pytest.mark.parametrize("branches", [1, 2])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32], ids=str)
def test_error_is_at_most_twice_that_of_pytorch(counter: bool, branches: int, dtype: torch.dtype, device: str) -> None:
    check_accuracy(inputs(branches, dtype, device), counter)


@pytest.mark.parametrize("count", [1, 63, 1025])
def test_short_latents(count: int, device: str) -> None:
    check_accuracy(inputs(2, torch.bfloat16, device, (1, count)), counter=True)


@pytest.mark.gpu
@pytest.mark.parametrize("counter", [False, True])
def test_full_size(counter: bool) -> None:
    check_accuracy(inputs(2, torch.bfloat16, "cuda", (1, 13, 16, 60, 90)), counter)


def test_philox_equals_its_known_answers() -> None:
    """Known answers of Random123 1.14 (`kat_vectors`, philox4x32 of 10 rounds) for zero key and counter."""
    zero = torch.zeros(1, dtype=torch.int64)
    words = reference.philox(zero, zero, zero)
    assert [int(word) for word in words] == [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]


def noise(device: str, count: int = 20_000, **changes: int) -> Tensor:
    """The kernel's noise: a step with all other coefficients zero."""
    arguments = inputs(1, torch.float32, device, (1, count))
    arguments["coefficients"] = torch.tensor([[0, 0, 0, 0, 0, 1, 0, 0]] * 4, dtype=torch.float32, device=device)
    arguments |= {name: torch.full_like(arguments[name], value) for name, value in changes.items()}
    return call(solver, arguments, counter=True)[0].flatten()


def test_noise_equals_the_specification(device: str) -> None:
    found = noise(device)
    seed, step = (torch.tensor([number], device=device) for number in (SEED, STEP))
    plain, exact = (reference.counter_noise(seed, step, len(found), dtype) for dtype in (torch.float32, torch.float64))
    assert relative_error(found, exact) <= 2 * relative_error(plain, exact)
    # Numbers near 0 and in the tails are as accurate as others: angle and logarithm lose no digits.
    assert float((found - exact).abs().max()) <= 2 * float((plain - exact).abs().max())


def test_noise_does_not_depend_on_the_launch(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = noise(device, 3000)
    assert torch.equal(found[:1000], noise(device, 1000))
    monkeypatch.setattr(solver, "tile", lambda *_: {"block": 256, "num_warps": 2})
    assert torch.equal(found, noise(device, 3000))


def test_noise_is_normal_and_uncorrelated(device: str) -> None:
    draws = [noise(device), noise(device, step=1), noise(device, seed=SEED + 1), noise(device, seed=SEED + 2**32)]
    draws.append(draws[0].roll(1))
    table = torch.stack(draws).double()
    # Five standard errors of the moments and correlations of this many normal numbers.
    allowed = 5 / math.sqrt(table.shape[1])
    for power, moment, spread in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96)):
        assert ((table**power).mean(1) - moment).abs().max() <= allowed * math.sqrt(spread)
    assert (torch.corrcoef(table) - torch.eye(len(draws), device=device)).abs().max() <= allowed


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"latents": torch.zeros(2, 13, 5, 7, 11)}, r"latents is torch.float32 \[2, 13.*wanted .*\[1, 13, 5, 7, 11\]"),
        ({"velocity": torch.zeros(3, *SHAPE[1:])}, r"velocity .*\[3, .* wanted .*\[1, 13, 5, 7, 11\]"),
        ({"velocity": torch.zeros(2, 13, 5, 11, 7).mT}, "velocity is non-contiguous"),
        ({"previous": torch.zeros(SHAPE).half()}, "previous is torch.float16"),
        ({"draw": torch.zeros(1, 2)}, r"draw is torch.float32 \[1, 2\]"),
        ({"coefficients": torch.zeros(8)}, r"coefficients is .* \[8\] .* wanted .*\[any, 8\]"),
        ({"step": torch.zeros(1, dtype=torch.int64)}, "step is torch.int64"),
    ],
)
def test_invalid_arguments_raise(change: dict[str, Tensor], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        call(solver, inputs(2, torch.float32, "cpu") | change, counter=False)


def test_a_seed_of_another_dtype_raises() -> None:
    with pytest.raises(ValueError, match=r"seed is torch.int32 \[1\] on cpu; wanted contiguous torch.int64 \[1\]"):
        call(solver, inputs(2, torch.float32, "cpu") | {"seed": torch.zeros(1, dtype=torch.int32)}, counter=True)
