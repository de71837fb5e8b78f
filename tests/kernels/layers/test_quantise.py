"""Quantisation of rows: the reference bit for bit; with GELU, within rounding to a neighbouring number."""

import pytest
import torch

from consisid_kernels import ops, reference
from consisid_kernels.layers import quantise

# GELU of a large negative value divides by infinity.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")
DTYPES = [torch.float16, torch.bfloat16, torch.float32]
SHAPES = [(1, 16), (3, 7, 48), (2, 65, 192), (5, 1000)]
MISROUNDED = 2**-8
"""Share of numbers that may be another: float32's GELU is about 2^-20 off, and E4M3 numbers are 2^-4 apart, so that it
is a 2^-16th; more where GELU is small beside its terms."""


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outputs that a kernel does not write are NaN."""
    torch.manual_seed(0)
    monkeypatch.setattr(
        quantise, "empty", lambda shape, dtype, device: torch.full(shape, float("nan"), device=device).to(dtype)
    )


def rows(*shape: int, dtype: torch.dtype, device: str) -> torch.Tensor:
    """Rows of other magnitudes, with an outlier each."""
    x = torch.randn(shape) * torch.logspace(-3, 2, shape[-2] if len(shape) > 1 else 1)[:, None]
    x[..., 3] *= 30
    return x.to(device, dtype)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows(dtype: torch.dtype, shape: tuple[int, ...], device: str) -> None:
    x = rows(*shape, dtype=dtype, device=device)
    found, scale = ops.quantise_rows(x)
    wanted, wanted_scale = reference.quantise_rows(x)
    assert found.shape == shape and scale.shape == (*shape[:-1], 1) and scale.dtype == torch.float32
    assert torch.equal(scale, wanted_scale)
    assert torch.equal(found.float(), wanted.float())


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_after_gelu(dtype: torch.dtype, shape: tuple[int, ...], device: str) -> None:
    x = rows(*shape, dtype=dtype, device=device)
    found, scale = ops.quantise_rows(x, gelu=True)
    wanted, wanted_scale = reference.quantise_rows(x.double(), gelu=True)
    assert torch.allclose(scale, wanted_scale, rtol=1e-5, atol=0)
    assert float((found.float() != wanted.float()).double().mean()) <= MISROUNDED


@pytest.mark.filterwarnings("ignore:invalid value encountered in divide:RuntimeWarning")
def test_zeros_nan_and_infinity_stay_in_their_rows(device: str) -> None:
    x = torch.ones(5, 32, device=device)
    x[1] = 0
    x[2, 7], x[3, 7] = float("nan"), float("inf")
    found, scale = (tensor.float() for tensor in ops.quantise_rows(x))
    assert (found[1] == 0).all() and scale[1] > 0
    wide = found * scale
    assert wide[2].isnan().all() and wide[3].isnan().all()
    assert torch.equal(wide[[0, 4]], x[[0, 4]])


def test_no_rows(device: str) -> None:
    found, scale = ops.quantise_rows(torch.ones(0, 32, device=device))
    assert found.shape == (0, 32) and scale.shape == (0, 1)


def test_invalid_arguments_raise(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.ones(4, 32, device=device)
    for wrong, message in (
        (x.mT, "x is non-contiguous"),
        (x.double(), "x is torch.float64"),
        (x[:, :0], "one channel"),
    ):
        with pytest.raises(ValueError, match=message):
            ops.quantise_rows(wrong)
    monkeypatch.setattr(quantise, "architecture", lambda _: 86)
    with pytest.raises(ValueError, match=r"compute capability 8\.6; E4M3 needs 8\.9"):
        ops.quantise_rows(x)
