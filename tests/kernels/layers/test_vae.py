"""The VAE's norm: at most twice PyTorch's own error at the same precision."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import reference
from consisid_kernels.layers import vae

pytestmark = [
    # Triton's interpreter counts a loop over run-time bounds so.
    pytest.mark.filterwarnings("ignore:Conversion of an array with ndim > 0:DeprecationWarning"),
    # SiLU of a large negative value divides by infinity.
    pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning"),
]
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
FIRST_OR_NEXT = pytest.mark.parametrize("first", [True, False], ids=["first", "next"])
EPS = 1e-6


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    monkeypatch.setattr(torch, "empty", lambda *shape, **options: torch.full(shape, float("nan"), **options))


@pytest.fixture
def tiled(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Changes the tiles that the wrapper finds."""

    def change(**changes: int) -> None:
        own = vae.tile
        monkeypatch.setattr(vae, "tile", lambda *case: own(*case) | changes)

    return change


def error(found: Tensor, exact: Tensor) -> float:
    return float((found.double() - exact).norm() / exact.norm())


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
    """With a few channels, frames and positions far from the rest."""
    (time, height, width), (longer, larger) = latents, enlarge
    size = height * larger, width * larger
    x = torch.randn(1, time * longer - (longer - 1 if first else 0), *size, channels)
    x[..., :: max(channels // 3, 1)] *= 20
    x[:, :1] *= 3
    x[:, -1, -1, -1] += 50
    made: dict[str, Tensor] = {"x": x + centre, "weight": torch.randn(channels), "bias": torch.randn(channels)}
    made |= {name: torch.randn(1, *latents, channels) for name in ("scale", "shift")}
    if not first:
        made["past"] = torch.randn(1, 2, *size, channels)
    moved: dict[str, Any] = {name: tensor.to(device, dtype) for name, tensor in made.items()}
    return {"past": None, **moved, "groups": groups, "enlarge": enlarge, "eps": EPS}


def wide(made: dict[str, Any]) -> dict[str, Any]:
    return {name: value.double() if isinstance(value, Tensor) else value for name, value in made.items()}


def agrees(made: dict[str, Any]) -> None:
    found, exact = vae.spatial_norm_silu(**made), reference.spatial_norm_silu(**wide(made))
    assert found.shape == exact.shape
    assert found.dtype == made["x"].dtype
    assert error(found, exact) <= 2 * error(reference.spatial_norm_silu(**made), exact)


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
    agrees(inputs(latents, channels, groups, enlarge, first, dtype, device))


@FIRST_OR_NEXT
@pytest.mark.parametrize(("elements", "chunks"), [(64, 1000), (128, 5), (32, 2)])
def test_statistics_of_many_chunks(
    elements: int, chunks: int, first: bool, tiled: Callable[..., None], device: str
) -> None:
    tiled(elements=elements, chunks=chunks, steps=1)
    agrees(inputs((3, 3, 5), 8, 2, (2, 3), first, torch.float32, device))


@pytest.mark.parametrize("elements", [64, 4096])
def test_statistics_far_from_zero(elements: int, tiled: Callable[..., None], device: str) -> None:
    """Where a sum of squares less a squared sum has no digits left, and PyTorch's own result has none on a CPU.

    Only the mean's own rounding remains: float32 numbers near 10⁴ are 2⁻¹⁰ of the deviation apart; wrong by two.
    """
    tiled(elements=elements, steps=1)
    made = inputs((2, 3, 5), 8, 2, (2, 3), False, torch.float32, device)
    made["x"] = torch.randn(made["x"].shape).to(device) + 1e4
    assert error(vae.spatial_norm_silu(**made), reference.spatial_norm_silu(**wide(made))) <= 2 * 2**-10


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_the_past_is_copied(dtype: torch.dtype, device: str) -> None:
    made = inputs((2, 2, 9), 12, 3, (2, 2), False, dtype, device)
    assert torch.equal(vae.spatial_norm_silu(**made)[:, :2], made["past"])


def test_before_the_first_frame_is_that_frame(device: str) -> None:
    found = vae.spatial_norm_silu(**inputs((3, 2, 9), 12, 3, (4, 2), True, torch.bfloat16, device))
    assert torch.equal(found[:, :2], found[:, 2:3].expand(-1, 2, -1, -1, -1))


def test_the_next_past_may_be_a_view_of_this_chunk(device: str) -> None:
    made = inputs((2, 2, 3), 8, 2, (2, 2), False, torch.bfloat16, device)
    past = vae.spatial_norm_silu(**made)[:, -2:]
    assert torch.equal(vae.spatial_norm_silu(**made | {"past": past})[:, :2], past)


def test_vectors_may_be_wider_than_the_frames(device: str) -> None:
    made = inputs((2, 2, 3), 16, 4, (2, 2), False, torch.bfloat16, device)
    vectors = {name: made[name].float() for name in ("weight", "bias", "scale", "shift")}
    assert torch.equal(vae.spatial_norm_silu(**made | vectors), vae.spatial_norm_silu(**made))


def test_constant_frames(device: str) -> None:
    """Their deviation is none but eps, and no rounding may stand in for it."""
    made = inputs((1, 2, 3), 8, 2, (2, 2), False, torch.float32, device)
    made["x"] = torch.full_like(made["x"], 0.1)
    found = vae.spatial_norm_silu(**made)[:, 2:]
    exact = reference.spatial_norm_silu(**wide(made))[:, 2:]
    assert error(found, exact) < 1e-3


def test_large_negative_values_vanish(device: str) -> None:
    made = inputs((1, 1, 1), 8, 2, (1, 1), False, torch.float32, device)
    made["shift"] = torch.full_like(made["shift"], -1000.0)
    assert not vae.spatial_norm_silu(**made)[:, 2:].any()


@FIRST_OR_NEXT
@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(
    ("space", "channels", "time"), [(8, 128, 4), (8, 256, 4), (4, 256, 4), (2, 512, 2), (1, 512, 1)]
)
def test_the_network_s_size(space: int, channels: int, time: int, first: bool, dtype: torch.dtype) -> None:
    made = inputs((1 if space == 8 else 2, 60, 90), channels, 32, (time, space), first, dtype, "cuda")
    agrees(made)
    assert torch.equal(vae.spatial_norm_silu(**made), vae.spatial_norm_silu(**made))


@FIRST_OR_NEXT
@pytest.mark.gpu
def test_more_values_than_32_bits_number(first: bool) -> None:
    """Rows again and again have the statistics of the rows, so that a small tensor tells what is right."""
    made = inputs((2, 4, 90), 256, 32, (4, 8), first, torch.bfloat16, "cuda")
    exact = reference.spatial_norm_silu(**wide(made))
    allowed = 2 * error(reference.spatial_norm_silu(**made), exact)
    copies = 2**31 // made["x"].numel() + 1
    tall = {
        name: made[name].repeat(1, 1, copies, 1, 1)
        for name in ("x", "scale", "shift", "past")
        if made[name] is not None
    }
    for part in torch.split(vae.spatial_norm_silu(**made | tall), 32, dim=2):
        assert error(part, exact) <= allowed


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"x": torch.zeros(1, 8, 4, 4, 6).transpose(1, 4)}, r"x is non-contiguous torch.float32 \[1, 6, 4, 4, 8\]"),
        ({"x": torch.zeros(2, 4, 4, 6, 8)}, r"wanted .* \[1, any, any, any, any\]"),
        ({"x": torch.zeros(1, 0, 4, 6, 8)}, "x is empty"),
        ({"x": torch.zeros(1, 4, 4, 6, 8).double()}, "wanted contiguous torch.float16 or torch.bfloat16"),
        ({"groups": 3}, "x has 8 channels, which do not divide into 3 groups"),
        ({"weight": torch.zeros(7)}, r"weight is torch.float32 \[7\] on cpu; wanted .*\[8\]"),
        ({"enlarge": (3, 2)}, "x has 4 frames of 4 × 6; no latents enlarged by 3 in time and 2 in space"),
        ({"enlarge": (2, 0)}, "no latents enlarged by 2 in time and 0 in space"),
        ({"past": None}, "x has 4 frames of 4 × 6 before any other; no latents"),
        ({"shift": torch.zeros(1, 2, 2, 2, 8)}, r"shift .* \[1, 2, 2, 3, 8\]"),
        ({"past": torch.zeros(1, 2, 4, 6, 8).half()}, "past is torch.float16 .* wanted contiguous torch.float32"),
        ({"past": torch.zeros(1, 1, 4, 6, 8)}, r"past .* \[1, 2, 4, 6, 8\]"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], problem: str) -> None:
    made = inputs((2, 2, 3), 8, 4, (2, 2), False, torch.float32, "cpu") | change
    with pytest.raises(ValueError, match=problem):
        vae.spatial_norm_silu(**made)
