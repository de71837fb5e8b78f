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
FLOAT8 = torch.float8_e4m3fn
SHAPES = [(1, 16, 16), (63, 48, 80), (226, 208, 144), (300, 64, 272), (1100, 16, 80)]
BLOCK_K = 128
"""Channels of an E4M3 tile, whose sum starts from zero."""
FLOAT32 = 2**-10
"""Share of numbers that float32 may round to another E4M3 number: the relative error of its sums is about 2^-15, and
the relative distance of E4M3 numbers 2^-4."""


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


def share_misrounded(found: Tensor, exact: Tensor, scale: Tensor) -> float:
    """The share of E4M3 numbers that are not the nearest to exact / scale."""
    assert found.dtype == FLOAT8
    nearest = (exact / scale.double()).clamp(-448, 448).float().to(FLOAT8)
    return float((found.float() != nearest.float()).double().mean())


def layer(rows: int, channels: int, columns: int, device: str) -> tuple[Tensor, Tensor, Tensor]:
    """x, weight and bias; a few channels of x are outliers, as in a transformer."""
    x, weight, bias = torch.randn(rows, channels), torch.randn(columns, channels), torch.randn(columns)
    x[:, :: max(channels // 3, 1)] *= 20
    return x.to(device), (weight * channels**-0.5).to(device), bias.to(device)


def quantised(x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x and weight in E4M3, each followed by its fp16 scales: one for x, one for each row of weight."""
    x_scale, weight_scale = (x.abs().max() / 300).half(), (weight.abs().amax(dim=1) / 448).half()
    narrow = (weight / weight_scale[:, None].float()).clamp(-448, 448).to(FLOAT8)
    return (x / x_scale.float()).clamp(-448, 448).to(FLOAT8), x_scale, narrow, weight_scale


def plain_float8(
    x: Tensor,
    x_scale: Tensor,
    weight: Tensor,
    weight_scale: Tensor,
    bias: Tensor,
    dtype: torch.dtype,
    gelu: bool = False,
    out_scale: Tensor | None = None,
) -> Tensor:
    """`reference.linear_float8`; on a GPU, with sums as computed by its tensor cores (`float8_sums`)."""
    if not x.is_cuda:
        return reference.linear_float8(x, x_scale, weight, weight_scale, bias, dtype, gelu, out_scale)
    out = products(x, weight, BLOCK_K) * (x_scale.float() * weight_scale.float()) + bias.float()
    out = F.gelu(out, approximate="tanh") if gelu else out
    return out.to(dtype) if out_scale is None else (out / out_scale.float()).clamp(-448, 448).to(FLOAT8)


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
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_gelu_to_float8(dtype: torch.dtype, shape: tuple[int, int, int], device: str) -> None:
    tensors = [tensor.to(dtype) for tensor in layer(*shape, device)]
    exact = reference.linear_gelu(*(tensor.double() for tensor in tensors))
    scale = (exact.abs().max() / 448).float().reshape(1)
    found, plain = (module.linear_gelu_float8(*tensors, scale) for module in (ffn, reference))
    assert share_misrounded(found, exact, scale) <= 2 * share_misrounded(plain, exact, scale) + FLOAT32


@needs_kernel
@pytest.mark.parametrize("gelu", [False, True], ids=["plain", "gelu"])
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_float8(dtype: torch.dtype, gelu: bool, shape: tuple[int, int, int], device: str) -> None:
    x, weight, bias = layer(*shape, device)
    tensors = *quantised(x, weight), bias.to(dtype)
    exact = reference.linear_float8(*tensors, torch.float64, gelu)
    found = ffn.linear_float8(*tensors, dtype, gelu)
    assert found.dtype == dtype
    assert relative_error(found, exact) <= 2 * relative_error(plain_float8(*tensors, dtype, gelu), exact)
    scale = (exact.abs().max() / 448).half()
    narrow, plain = (layer(*tensors, dtype, gelu, scale) for layer in (ffn.linear_float8, plain_float8))
    assert share_misrounded(narrow, exact, scale) <= 2 * share_misrounded(plain, exact, scale) + FLOAT32


@needs_kernel
def test_float8_saturates_and_keeps_nan(device: str) -> None:
    x, weight, bias = (tensor.half() for tensor in layer(40, 32, 16, device))
    x[3] = float("nan")
    found = ffn.linear_gelu_float8(x, weight, bias, torch.tensor([1e-4], device=device)).float()
    assert found[3].isnan().all()
    rest = found[torch.arange(40) != 3]
    assert rest.max() == 448 and not rest.isnan().any()


@pytest.mark.parametrize("architecture", [80, 89, 120])
def test_other_architectures_raise(architecture: int, device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ffn, "architecture", lambda _: architecture)
    x, weight, bias = (tensor.half() for tensor in layer(40, 32, 16, device))
    scale = torch.ones(1, device=device)
    for call in (
        lambda: ffn.linear_gelu(x, weight, bias),
        lambda: ffn.linear_gelu_float8(x, weight, bias, scale),
        lambda: ffn.linear_float8(x.to(FLOAT8), scale, weight.to(FLOAT8), bias, bias, torch.float16),
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
    with pytest.raises(ValueError, match=r"weight_scale is torch.float16 \[16\]"):
        ffn.linear_float8(narrow, x_scale, narrow_weight, weight_scale[:16], bias, torch.float16)
    with pytest.raises(ValueError, match=r"x_scale is torch.float16 \[32\]"):
        ffn.linear_float8(narrow, weight_scale, narrow_weight, weight_scale, bias, torch.float16)
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
