"""Linear layers with an epilogue: an error of at most twice that of PyTorch at the same precision."""

import json

import pytest
import torch
import torch.nn.functional as F
from accuracy import relative_error
from float8_sums import products
from torch import Tensor

pytest.importorskip("triton")

from consisid_kernels import launch, reference
from consisid_kernels.layers import ffn, linear

# GELU of a large negative value divides by infinity.
pytestmark = pytest.mark.filterwarnings("ignore:overflow encountered in exp2:RuntimeWarning")
DTYPES = [torch.float16, torch.bfloat16]
SHAPES = [(1, 16, 16), (63, 48, 80), (226, 208, 144), (300, 64, 272), (1100, 16, 80)]
BLOCK_K = 128
"""Channels of an E4M3 tile, whose sum starts from zero."""


def unsupported() -> bool:
    """Whether this GPU does not support the kernels."""
    if not torch.cuda.is_available():
        return False
    major, minor = torch.cuda.get_device_capability()
    return launch.family(10 * major + minor) not in ffn.ARCHITECTURES


needs_kernel = pytest.mark.skipif(unsupported(), reason="the GPU does not support the kernels")


@pytest.fixture(autouse=True)
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Seeds the inputs; outputs that a kernel does not write are NaN or extreme."""
    torch.manual_seed(0)
    monkeypatch.setattr(
        torch, "empty", lambda shape, dtype, device: torch.full(shape, float("nan"), device=device).to(dtype)
    )


def layer(rows: int, channels: int, columns: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias; a few channels of x are outliers, as in a transformer."""
    x, weight, bias = torch.randn(rows, channels), torch.randn(columns, channels), torch.randn(columns)
    x[:, :: max(channels // 3, 1)] *= 20
    return x.to(device), (weight * channels**-0.5).to(device), bias.to(device)


def quantised(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x and weight in E4M3, each followed by its scales, one for each row."""
    narrow, scale = reference.quantise_rows(weight)
    return *reference.quantise_rows(x), narrow, scale.flatten()


def plain_float8(
    x: Tensor, x_scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None, dtype: torch.dtype
) -> Tensor:
    """`reference.linear_float8`; on a GPU, with sums as computed by its tensor cores (`float8_sums`)."""
    if not x.is_cuda:
        return reference.linear_float8(x, x_scale, weight, weight_scale, bias, dtype)
    out = products(x, weight, BLOCK_K) * (x_scale.float() * weight_scale.float())
    return (out if bias is None else out + bias.float()).to(dtype)


def test_e4m3_tiles_have_the_expected_number_of_channels() -> None:
    table = json.loads((launch.TILES / "linear.json").read_text())
    assert {tiles["e4m3"]["block_k"] for tiles in table.values() if "e4m3" in tiles} == {BLOCK_K}


@needs_kernel
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gelu(dtype: torch.dtype, shape: tuple[int, int, int], device: str) -> None:
    tensors = [tensor.to(dtype) for tensor in layer(*shape, device)]
    exact = reference.linear_gelu(*(tensor.double() for tensor in tensors))
    found = ffn.linear_gelu(*tensors)
    assert found.dtype == dtype
    assert relative_error(found, exact) <= 2 * relative_error(reference.linear_gelu(*tensors), exact)
    assert torch.equal(found, ffn.linear_gelu(*tensors))


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gelu_by_cublaslt(dtype: torch.dtype, shape: tuple[int, int, int]) -> None:
    tensors = [tensor.to(dtype) for tensor in layer(*shape, "cuda")]
    exact = reference.linear_gelu(*(tensor.double() for tensor in tensors))
    found = linear.cublaslt_linear_gelu(*tensors)
    assert relative_error(found, exact) <= 2 * relative_error(reference.linear_gelu(*tensors), exact)


@needs_kernel
@pytest.mark.parametrize("biased", [True, False], ids=["bias", "no-bias"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float8(dtype: torch.dtype, biased: bool, shape: tuple[int, int, int], device: str) -> None:
    x, weight, bias = layer(*shape, device)
    x *= torch.logspace(-2, 2, len(x), device=device)[:, None]  # a scale fits its own row alone
    tensors = *quantised(x, weight), bias.to(dtype) if biased else None
    exact = reference.linear_float8(*tensors, torch.float64)
    found = ffn.linear_float8(*tensors, dtype)
    assert found.dtype == dtype
    errors = [(each.double() - exact).norm(dim=-1) for each in (found, plain_float8(*tensors, dtype))]
    assert (errors[0] <= 2 * errors[1] + 1e-7 * exact.norm(dim=-1)).all()


@pytest.mark.gpu
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float8_by_scaled_mm(shape: tuple[int, int, int]) -> None:
    if torch.cuda.get_device_capability() < (8, 9):
        pytest.skip("the GPU has no E4M3")
    x, weight, bias = layer(*shape, "cuda")
    tensors = *quantised(x, weight), bias.bfloat16()
    exact = reference.linear_float8(*tensors, torch.float64)
    found = linear.scaled_mm(*tensors, torch.bfloat16)
    assert relative_error(found, exact) <= 2 * relative_error(plain_float8(*tensors, torch.bfloat16), exact)


def test_scaled_mm_gets_the_arguments_that_pytorch_defines() -> None:
    """PyTorch computes it on a CPU, too."""
    x, weight, bias = layer(63, 48, 80, "cpu")
    tensors = *quantised(x, weight), bias.bfloat16()
    exact = reference.linear_float8(*tensors, torch.float64)
    leading = [tensor.view(7, 9, -1) for tensor in tensors[:2]]
    found = linear.scaled_mm(*leading, *tensors[2:], torch.bfloat16)
    assert found.shape == (7, 9, 80) and found.dtype == torch.bfloat16
    assert relative_error(found.flatten(0, 1), exact) < 2**-7


@needs_kernel
def test_nan_stays_in_its_row(device: str) -> None:
    x, weight, bias = layer(40, 32, 16, device)
    x[3] = float("nan")
    found = ffn.linear_float8(*quantised(x, weight), bias.half(), torch.float16)
    assert found[3].isnan().all()
    assert not found[torch.arange(40) != 3].isnan().any()


@pytest.mark.parametrize("architecture", [80, 89, 120])
def test_other_architectures_raise(architecture: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffn, "architecture", lambda _: architecture)
    x, weight, bias = (tensor.half() for tensor in layer(40, 32, 16, device))
    for call in (
        lambda: ffn.linear_gelu(x, weight, bias),
        lambda: ffn.linear_float8(*quantised(x, weight), bias, torch.float16),
    ):
        with pytest.raises(ValueError, match=f"compute capability {architecture / 10}; this kernel needs 9.x and 10.x"):
            call()


@pytest.mark.parametrize(("form", "calls"), [("triton", ["ffn"]), ("cublaslt", ["cublaslt"])])
def test_the_layer_runs_in_the_form_of_the_table(form: str, calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    asked, ran = [], []
    monkeypatch.setattr(linear, "architecture", lambda _: 90)
    monkeypatch.setattr(linear, "form", lambda *given: (asked.append(given), form)[1])
    monkeypatch.setattr(ffn, "linear_gelu", lambda *given: ran.append("ffn"))
    monkeypatch.setattr(linear, "cublaslt_linear_gelu", lambda *given: ran.append("cublaslt"))
    linear.linear_gelu(*(tensor.bfloat16() for tensor in layer(40, 32, 16, "cpu")))
    assert (ran, asked) == (calls, [("linear_gelu", "bf16", 90)])


@pytest.mark.parametrize(("form", "calls"), [("triton", ["ffn"]), ("scaled_mm", ["scaled_mm"])])
def test_the_float8_layer_runs_in_the_form_of_the_table(
    form: str, calls: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, ran = [], []
    monkeypatch.setattr(linear, "architecture", lambda _: 90)
    monkeypatch.setattr(linear, "form", lambda *given: (asked.append(given), form)[1])
    monkeypatch.setattr(ffn, "linear_float8", lambda *given: ran.append("ffn"))
    monkeypatch.setattr(linear, "scaled_mm", lambda *given: ran.append("scaled_mm"))
    x, weight, bias = layer(40, 32, 16, "cpu")
    linear.linear_float8(*quantised(x, weight), bias.bfloat16(), torch.bfloat16)
    assert (ran, asked) == (calls, [("linear_float8", "bf16", 90)])


def test_on_a_cpu_the_layer_is_the_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    tensors = [tensor.half() for tensor in layer(40, 32, 16, "cpu")]
    monkeypatch.setattr(linear, "cublaslt_linear_gelu", None)
    assert torch.equal(linear.linear_gelu(*tensors), ffn.linear_gelu(*tensors))


def test_cublaslts_epilogue_is_of_pytorchs_product_with_gelu(device: str) -> None:
    """In float32, where GELU's two forms differ by more than rounding: a GPU has the tanh form, a CPU the exact."""
    x, weight, bias = layer(63, 48, 80, device)
    tanh, exact = (F.gelu(F.linear(x, weight, bias), approximate=form) for form in ("tanh", "none"))
    found = linear.cublaslt_linear_gelu(x.view(7, 9, 48), weight, bias).view(63, 80)
    right, wrong = (tanh, exact) if device == "cuda" else (exact, tanh)
    apart = (tanh - exact).abs().max()
    assert (found - right).abs().max() < apart / 10
    assert (found - wrong).abs().max() > apart / 2


@needs_kernel
def test_leading_dimensions_are_kept(device: str) -> None:
    x, weight, bias = (tensor.half() for tensor in layer(24, 32, 16, device))
    found = ffn.linear_gelu(x.view(2, 3, 4, 32), weight, bias)
    assert torch.equal(found, ffn.linear_gelu(x, weight, bias).view(2, 3, 4, 16))
    assert ffn.linear_gelu(x[:0], weight, bias).shape == (0, 16)


@needs_kernel
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, w, b: (x[:, :24].contiguous(), w[:, :24].contiguous(), b), "multiples of 16"),
        (lambda x, w, b: (x, w[:24], b[:24]), "multiples of 16"),
        (lambda x, w, b: (x[::2], w, b), "x is non-contiguous"),
        (lambda x, w, b: (x, w.bfloat16(), b), "weight is torch.bfloat16"),
        (lambda x, w, b: (x.float(), w.float(), b), "x is torch.float32"),
        (lambda x, w, b: (x, w[:, :16].contiguous(), b), r"weight is torch.float16 \[32, 16\]"),
        (lambda x, w, b: (x, w, b[:16]), r"bias is torch.float16 \[16\]"),
    ],
)
def test_invalid_arguments_raise(change, message: str, device: str) -> None:  # type: ignore[no-untyped-def]
    tensors = change(*(tensor.half() for tensor in layer(10, 32, 32, device)))
    with pytest.raises(ValueError, match=message):
        ffn.linear_gelu(*tensors)


@needs_kernel
def test_invalid_scales_raise(device: str) -> None:
    x, weight, bias = layer(10, 32, 32, device)
    narrow, x_scale, narrow_weight, weight_scale = quantised(x, weight)
    with pytest.raises(ValueError, match=r"weight_scale is torch.float32 \[16\]"):
        ffn.linear_float8(narrow, x_scale, narrow_weight, weight_scale[:16], bias, torch.float16)
    with pytest.raises(ValueError, match=r"x_scale is torch.float32 \[1\]"):
        ffn.linear_float8(narrow, x_scale[0], narrow_weight, weight_scale, bias, torch.float16)
    with pytest.raises(ValueError, match=r"dtype is torch\.float32"):
        ffn.linear_float8(narrow, x_scale, narrow_weight, weight_scale, bias, torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_full_size(dtype: torch.dtype) -> None:
    """Compares a sample of rows, including the last; the second layer has the longest sums."""
    x, weight, bias = (tensor.to(dtype) for tensor in layer(35_552, 12_288, 3072, "cuda"))
    rows = torch.cat((torch.arange(0, 35_552, 997), torch.arange(35_500, 35_552))).cuda()
    exact = reference.linear_gelu(x[rows].double(), weight.double(), bias.double())
    found, plain = (module.linear_gelu(x, weight, bias)[rows] for module in (linear, reference))
    assert relative_error(found, exact) <= 2 * relative_error(plain, exact)
    if unsupported():
        return
    found = ffn.linear_gelu(x, weight, bias)[rows]
    assert relative_error(found, exact) <= 2 * relative_error(plain, exact)
    tensors = *quantised(x.float(), weight.float()), bias
    exact = reference.linear_float8(tensors[0][rows], *tensors[1:], torch.float64)
    plain = plain_float8(tensors[0][rows], *tensors[1:], dtype)
    assert relative_error(ffn.linear_float8(*tensors, dtype)[rows], exact) <= 2 * relative_error(plain, exact)
