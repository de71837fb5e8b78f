"""The norm of the VAE decoder: an error of at most twice that of PyTorch at the same precision."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from accuracy import relative_error
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.layers import vae

# SiLU of a large negative value divides by infinity.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
FIRST_OR_NEXT = pytest.mark.parametrize("first", [True, False], ids=["first", "next"])
EPS = 1e-6


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: torch.full(shape, float("nan"), **options))


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Replaces parameters of the tiles."""

    def change(**changes: int) -> None:
        own = vae.tile
        monkeypatch.setattr(vae, "tile", lambda *case: own(*case) | changes)

    return change


def inputs(
    latents: tuple[int, int, int],
    channels: int,
    groups: int,
    enlarge: tuple[int, int],
    first: bool,
    dtype: torch.dtype,
    device: str,
    centre: float = 3.0,
) -> dict[str, Any]:
    """A few channels, frames and positions are outliers."""
    (time, height, width), (longer, larger) = latents, enlarge
    size = height * larger, width * larger
    x = torch.randn(1, time * longer - (longer - 1 if first else 0), *size, channels)
    x[..., :: max(channels // 3, 1)] *= 20
    x[:, :1] *= 3
    x[:, -1, -1, -1] += 50
    arguments: dict[str, Tensor] = {"x": x + centre, "weight": torch.randn(channels), "bias": torch.randn(channels)}
    arguments |= {name: torch.randn(1, *latents, channels) for name in ("scale", "shift")}
    if not first:
        arguments["past"] = torch.randn(1, 2, *size, channels)
    moved: dict[str, Any] = {name: tensor.to(device, dtype) for name, tensor in arguments.items()}
    return {"past": None, **moved, "groups": groups, "enlarge": enlarge, "eps": EPS}


def in_float64(arguments: dict[str, Any]) -> dict[str, Any]:
    return {name: value.double() if isinstance(value, Tensor) else value for name, value in arguments.items()}


def check_accuracy(arguments: dict[str, Any]) -> None:
    found, exact = vae.spatial_norm_silu(**arguments), reference.spatial_norm_silu(**in_float64(arguments))
    assert found.shape == exact.shape
    assert found.dtype == arguments["x"].dtype
    assert relative_error(found, exact) <= 2 * relative_error(reference.spatial_norm_silu(**arguments), exact)


@FIRST_OR_NEXT
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("latents", "channels", "groups", "enlarge"),
    [
        ((1, 1, 1), 8, 4, (1, 1)),
        ((3, 2, 3), 16, 4, (2, 2)),
        ((2, 5, 9), 12, 3, (1, 3)),
        ((2, 3, 7), 35, 7, (3, 1)),
        ((2, 1, 3), 128, 32, (4, 8)),
        ((1, 3, 5), 512, 32, (1, 1)),
        ((3, 1, 63), 8, 1, (1, 1)),
    ],
    ids=str,
)
def test_error_is_at_most_twice_that_of_pytorch(
    dtype: torch.dtype,
    latents: tuple[int, int, int],
    channels: int,
    groups: int,
    enlarge: tuple[int, int],
    first: bool,
    device: str,
) -> None:
    check_accuracy(inputs(latents, channels, groups, enlarge, first, dtype, device))


@FIRST_OR_NEXT
@pytest.mark.parametrize(("elements", "chunks"), [(64, 1000), (128, 5), (32, 2)])
def test_statistics_of_many_chunks(
    elements: int, chunks: int, first: bool, tiled: Callable[..., None], device: str
) -> None:
    tiled(elements=elements, chunks=chunks, steps=1)
    check_accuracy(inputs((3, 3, 5), 8, 2, (2, 3), first, torch.float32, device))


@pytest.mark.parametrize("elements", [64, 4096])
def test_statistics_far_from_zero(elements: int, tiled: Callable[..., None], device: str) -> None:
    """A variance as E[x²] − E[x]² would have no correct digits here, and PyTorch's result has none on a CPU.

    What remains is rounding: float32 numbers near 10⁴ are 2⁻¹⁰ of a deviation apart, and the error may be two of them.
    """
    tiled(elements=elements, steps=1)
    arguments = inputs((2, 3, 5), 8, 2, (2, 3), False, torch.float32, device)
    arguments["x"] = torch.randn(arguments["x"].shape).to(device) + 1e4
    assert (
        relative_error(vae.spatial_norm_silu(**arguments), reference.spatial_norm_silu(**in_float64(arguments)))
        <= 2 * 2**-10
    )


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_past_is_copied(dtype: torch.dtype, device: str) -> None:
    arguments = inputs((2, 2, 9), 12, 3, (2, 2), False, dtype, device)
    assert torch.equal(vae.spatial_norm_silu(**arguments)[:, :2], arguments["past"])


def test_the_past_of_the_first_frame_is_that_frame(device: str) -> None:
    found = vae.spatial_norm_silu(**inputs((3, 2, 9), 12, 3, (4, 2), True, torch.bfloat16, device))
    assert torch.equal(found[:, :2], found[:, 2:3].expand(-1, 2, -1, -1, -1))


def test_the_next_past_may_be_a_view_of_this_chunk(device: str) -> None:
    arguments = inputs((2, 2, 3), 8, 2, (2, 2), False, torch.bfloat16, device)
    past = vae.spatial_norm_silu(**arguments)[:, -2:]
    assert torch.equal(vae.spatial_norm_silu(**arguments | {"past": past})[:, :2], past)


def test_vectors_in_float32(device: str) -> None:
    arguments = inputs((2, 2, 3), 16, 4, (2, 2), False, torch.bfloat16, device)
    vectors = {name: arguments[name].float() for name in ("weight", "bias", "scale", "shift")}
    assert torch.equal(vae.spatial_norm_silu(**arguments | vectors), vae.spatial_norm_silu(**arguments))


def test_constant_frames(device: str) -> None:
    """Their variance is 0, so that rounding errors would be divided by √eps."""
    arguments = inputs((1, 2, 3), 8, 2, (2, 2), False, torch.float32, device)
    arguments["x"] = torch.full_like(arguments["x"], 0.1)
    found = vae.spatial_norm_silu(**arguments)[:, 2:]
    exact = reference.spatial_norm_silu(**in_float64(arguments))[:, 2:]
    assert relative_error(found, exact) < 1e-3


def test_large_negative_values_become_zero(device: str) -> None:
    arguments = inputs((1, 1, 1), 8, 2, (1, 1), False, torch.float32, device)
    arguments["shift"] = torch.full_like(arguments["shift"], -1000.0)
    assert not vae.spatial_norm_silu(**arguments)[:, 2:].any()


@FIRST_OR_NEXT
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("space", "channels", "time"), [(8, 128, 4), (8, 256, 4), (4, 256, 4), (2, 512, 2), (1, 512, 1)]
)
def test_full_size(space: int, channels: int, time: int, first: bool, dtype: torch.dtype) -> None:
    arguments = inputs((1 if space == 8 else 2, 60, 90), channels, 32, (time, space), first, dtype, "cuda")
    check_accuracy(arguments)
    assert torch.equal(vae.spatial_norm_silu(**arguments), vae.spatial_norm_silu(**arguments))


@FIRST_OR_NEXT
@pytest.mark.gpu
def test_offsets_beyond_32_bits(first: bool) -> None:
    """Repeated rows have the statistics of the rows, so the result of a small tensor is the expected one."""
    arguments = inputs((2, 4, 90), 256, 32, (4, 8), first, torch.bfloat16, "cuda")
    exact = reference.spatial_norm_silu(**in_float64(arguments))
    allowed = 2 * relative_error(reference.spatial_norm_silu(**arguments), exact)
    copies = 2**31 // arguments["x"].numel() + 1
    tall = {
        name: arguments[name].repeat(1, 1, copies, 1, 1)
        for name in ("x", "scale", "shift", "past")
        if arguments[name] is not None
    }
    for part in torch.split(vae.spatial_norm_silu(**arguments | tall), 32, dim=2):
        assert relative_error(part, exact) <= allowed


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"x": torch.zeros(1, 8, 4, 4, 6).transpose(1, 4)}, r"x is non-contiguous torch.float32 \[1, 6, 4, 4, 8\]"),
        ({"x": torch.zeros(2, 4, 4, 6, 8)}, r"wanted .* \[1, any, any, any, any\]"),
        ({"x": torch.zeros(1, 0, 4, 6, 8)}, "x is empty"),
        ({"x": torch.zeros(1, 4, 4, 6, 8).double()}, "wanted contiguous torch.float16 or torch.bfloat16"),
        ({"groups": 3}, "x has 8 channels, not a multiple of 3 groups"),
        ({"weight": torch.zeros(7)}, r"weight is torch.float32 \[7\] on cpu; wanted .*\[8\]"),
        ({"enlarge": (3, 2)}, "x has 4 frames of 4 × 6; no latents enlarged by 3 in time and 2 in space"),
        ({"enlarge": (2, 0)}, "no latents enlarged by 2 in time and 0 in space"),
        ({"past": None}, "x has 4 frames of 4 × 6 in the first chunk; no latents"),
        ({"shift": torch.zeros(1, 2, 2, 2, 8)}, r"shift .* \[1, 2, 2, 3, 8\]"),
        ({"past": torch.zeros(1, 2, 4, 6, 8).half()}, "past is torch.float16 .* wanted contiguous torch.float32"),
        ({"past": torch.zeros(1, 1, 4, 6, 8)}, r"past .* \[1, 2, 4, 6, 8\]"),
    ],
)
def test_invalid_arguments_raise(change: dict[str, Any], problem: str) -> None:
    arguments = inputs((2, 2, 3), 8, 4, (2, 2), False, torch.float32, "cpu") | change
    with pytest.raises(ValueError, match=problem):
        vae.spatial_norm_silu(**arguments)
