"""PTX for TensorRT: its parameters, a version that drivers support, and the machine code of Triton's PTX."""

import ctypes
import json
import re
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from machine_code import install_newest_triton, run_python

from consisid_kernels import reference
from consisid_kernels.compile import ptx, tensorrt
from consisid_kernels.compile.ptx import tensorrt_kernel, without_debugging, without_hidden

PROBE = Path(__file__).parents[2] / "data" / "assemble_ptx.py"
NEWEST = Path(__file__).parents[3] / "build" / "triton-newest"
SAMPLE = ("joint_attention/bf16-d64 sm_90", "joint_attention/fp16-d128 sm_80", "face_attention_plugin/bf16-c3072 sm_90")
PARAMETERS = {
    "joint_attention": ["u64"] * 3 + ["u32"] * 3 + ["u64"],
    "face_attention_plugin": ["u64"] * 5 + ["u32", "u64"],
}
WIDE = re.compile(r"cp\.async\.cg\.shared\.global .*, 0x10,")


def assembled(*names: str, triton: Path | None = None) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = json.loads(run_python(PROBE, *names, triton=triton))
    return found


def check(name: str, found: dict[str, Any]) -> None:
    kernel, _, target = name.partition("/")
    architecture = int(target.rpartition("_")[2])
    code = found["ptx"]
    entry = re.search(r"\.entry \w+\(\n(.*?)\n\)", code, re.DOTALL)
    assert entry is not None
    assert re.findall(r"\.param \.(\w+)", entry[1]) == PARAMETERS[kernel]
    assert re.search(r"^\.version (\d\.\d)$", code, re.MULTILINE)[1] == "8.7"  # type: ignore[index]
    assert re.search(rf"^\.target sm_{architecture}a?$", code, re.MULTILINE)
    assert (found["threads"], found["shared"]) == (found["original_threads"], found["original_shared"])
    assert found["registers"] == found["original_registers"]
    assert not re.search(r"\.py\b|debug|\.loc\b", code), "contains paths of source files"
    # Without known alignment, two bytes are read at a time.
    assert WIDE.search(code) and not WIDE.search(found["unaligned"])


def test_a_sample_is_the_same_machine_code() -> None:
    found = assembled(*SAMPLE)
    assert set(found) == set(SAMPLE)
    for name, what in found.items():
        check(name, what)


@pytest.mark.proof
@pytest.mark.parametrize("newest", [False, True], ids=["this triton", "newest triton"])
def test_every_variant_is_the_same_machine_code(newest: bool) -> None:
    found = assembled(triton=install_newest_triton(NEWEST) if newest else None)
    assert len(found) == 30
    for name, what in found.items():
        check(name, what)


TEXT = """.version 8.7
.target sm_90a
.visible .entry kernel(
	.param .u64 .ptr .global .align 1 kernel_param_0,
	.param .u32 kernel_param_1,
	.param .u64 .ptr .global .align 1 kernel_param_10,
	.param .u64 .ptr .global .align 1 kernel_param_3
)
.reqntid 128
{
	.loc	1 7 0                         // secret.py:7:0
	ld.param.b64 	%rd1, [kernel_param_0];
	ld.param.b64 	%rd2, [kernel_param_10];
	ret;
}
	.file	1 "/home/secret.py"
	.section	.debug_abbrev
	{
.b8 1                                   // Abbreviation Code
	}
	.section	.debug_macinfo	{	}
"""


def test_hidden_parameters_are_removed() -> None:
    cut = without_hidden(TEXT, 3)
    assert cut == TEXT.replace(",\n\t.param .u64 .ptr .global .align 1 kernel_param_3", "")
    assert without_hidden(cut, 3) == cut


def test_a_hidden_parameter_that_is_read_raises() -> None:
    with pytest.raises(ValueError, match="kernel reads its hidden parameter kernel_param_10, which TensorRT does not"):
        without_hidden(TEXT, 2)


def test_missing_parameters_raise() -> None:
    with pytest.raises(ValueError, match="kernel has 4 parameters; wanted at least 5"):
        without_hidden(TEXT, 5)


@pytest.mark.parametrize("text", ["", TEXT + TEXT], ids=["none", "two"])
def test_anything_but_one_kernel_raises(text: str) -> None:
    with pytest.raises(ValueError, match="no single entry point"):
        without_hidden(text, 3)


def test_debugging_sections_are_removed() -> None:
    cut = without_debugging(TEXT)
    assert cut == TEXT[: TEXT.index("\t.file")].replace("\t.loc\t1 7 0                         // secret.py:7:0\n", "")


@pytest.mark.parametrize(
    "signature",
    [
        {"x": "*bf16", "eps": "fp32", "out": "*bf16"},
        {"x": "*bf16", "n": "i64", "out": "*bf16"},
        {"n": "i32", "x": "*bf16", "out": "*bf16"},
        {"x": "*bf16", "out": "*bf16", "n": "i32"},
    ],
    ids=["float", "int64", "number first", "number last"],
)
def test_another_order_of_arguments_raises(signature: dict[str, str]) -> None:
    variant = replace(tensorrt.joint_attention("bf16", 64, 90), signature=signature)
    with pytest.raises(ValueError, match="TensorRT passes pointers, then i32, then pointers"):
        tensorrt_kernel(variant, 90)


@pytest.mark.parametrize(
    ("name", "value"),
    [("global_scratch_size", 64), ("profile_scratch_size", 64), ("launch_cooperative_grid", True), ("num_ctas", 2)],
)
def test_requirements_that_tensorrt_lacks_raise(monkeypatch: pytest.MonkeyPatch, name: str, value: int) -> None:
    metadata = SimpleNamespace(**({"num_ctas": 1, "shared": 0} | {name: value}))
    monkeypatch.setattr(ptx, "compile_for", lambda *_: SimpleNamespace(metadata=metadata, asm={"ptx": TEXT}))
    with pytest.raises(ValueError, match=f"joint_attention/bf16-d64 needs {name}, which TensorRT does not provide"):
        tensorrt_kernel(tensorrt.joint_attention("bf16", 64, 90), 90)


def assert_close(found: torch.Tensor, exact: torch.Tensor, plain: torch.Tensor) -> None:
    """The largest error is at most twice that of PyTorch."""
    error, allowed = ((x.double() - exact).abs().max() for x in (found, plain))
    assert error <= 2 * allowed


def test_the_entry_for_tensorrt_computes_face_attention(device: str) -> None:
    channels, heads, slots, tokens = 96, 2, 64, 65
    variant = tensorrt.face_attention("fp16", channels, slots, heads, 1e-5, 90)
    generator = torch.Generator().manual_seed(0)
    shapes = ((2, tokens, channels), (channels,), (channels,), (channels, slots), (slots, channels))
    given = [torch.randn(shape, generator=generator).to(device, torch.float16) for shape in shapes]
    out = torch.full_like(given[0], float("nan"))
    grid = -(-tokens // variant.constants["BLOCK_M"]), 2
    variant.kernel[grid](*given, tokens, out, **variant.constants, num_warps=variant.warps)
    exact = reference.face_attention(*(tensor.double() for tensor in given), heads=heads, text=0, eps=1e-5)
    assert_close(out, exact, reference.face_attention(*given, heads=heads, text=0, eps=1e-5))


def run(kernel: ptx.Kernel, grid: tuple[int, int], arguments: list[torch.Tensor | int]) -> None:
    """Compiles the PTX with the driver and launches it with the arguments that TensorRT would pass."""
    driver = ctypes.CDLL("libcuda.so.1")
    module, function = ctypes.c_void_p(), ctypes.c_void_p()

    def call(name: str, *given: Any) -> None:
        code = getattr(driver, name)(*given)
        assert code == 0, f"{name}: {code}"

    call("cuModuleLoadData", ctypes.byref(module), kernel.ptx.encode())
    call("cuModuleGetFunction", ctypes.byref(function), module, kernel.name.encode())
    max_dynamic_shared = 8
    call("cuFuncSetAttribute", function, max_dynamic_shared, kernel.shared)
    values = [
        ctypes.c_int32(value) if isinstance(value, int) else ctypes.c_uint64(value.data_ptr()) for value in arguments
    ]
    pointers = (ctypes.c_void_p * len(values))(*(ctypes.addressof(value) for value in values))
    stream = ctypes.c_void_p(torch.cuda.current_stream().cuda_stream)
    call("cuLaunchKernel", function, *grid, 1, kernel.threads, 1, 1, kernel.shared, stream, pointers, None)
    torch.cuda.synchronize()
    call("cuModuleUnload", module)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
class TestOnGpu:
    @pytest.mark.parametrize("tokens", [1, 226, 1025])
    @pytest.mark.parametrize("size", [64, 128])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_the_driver_runs_joint_attention(self, dtype: torch.dtype, size: int, tokens: int) -> None:
        name, number = {torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype], capability()
        variant = tensorrt.joint_attention(name, size, number)
        generator = torch.Generator("cuda").manual_seed(0)
        q, k, v = (torch.randn(2, 3, tokens, size, device="cuda", generator=generator).to(dtype) for _ in range(3))
        out = torch.full((2, tokens, 3, size), float("nan"), dtype=dtype, device="cuda")
        grid = -(-tokens // variant.constants["BLOCK_M"]), 6
        run(tensorrt_kernel(variant, number), grid, [q, k, v, tokens, tokens, 3, out])
        exact = reference.joint_attention(q.double(), k.double(), v.double())
        assert_close(out, exact, reference.joint_attention(q, k, v))

    @pytest.mark.parametrize("tokens", [1, 63, 1025])
    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
    def test_the_driver_runs_face_attention(self, dtype: torch.dtype, tokens: int) -> None:
        name, number = {torch.float16: "fp16", torch.bfloat16: "bf16"}[dtype], capability()
        variant = tensorrt.face_attention(name, 3072, 512, 16, 1e-5, number)
        generator = torch.Generator("cuda").manual_seed(0)
        shapes = ((2, tokens, 3072), (3072,), (3072,), (3072, 512), (512, 3072))
        scales = (1, 1, 1, 0.03, 0.1)
        x, weight, bias, keys, values = (
            (scale * torch.randn(shape, device="cuda", generator=generator)).to(dtype)
            for shape, scale in zip(shapes, scales, strict=True)
        )
        out = torch.full_like(x, float("nan"))
        grid = -(-tokens // variant.constants["BLOCK_M"]), 2
        run(tensorrt_kernel(variant, number), grid, [x, weight, bias, keys, values, tokens, out])
        given = (x, weight, bias, keys, values)
        exact = reference.face_attention(*(tensor.double() for tensor in given), heads=16, text=0, eps=1e-5)
        assert_close(out, exact, reference.face_attention(*given, heads=16, text=0, eps=1e-5))


def capability() -> int:
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor
