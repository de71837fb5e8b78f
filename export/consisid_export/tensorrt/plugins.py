"""`consisid::joint_attention` and `consisid::face_attention`: our kernels as TensorRT's ahead-of-time plugins.

TensorRT's parser finds a registered plugin for each node of `plugin_graph`. The kernel is compiled for one architecture
while the engine is built, without a GPU or nvcc. The engine contains its PTX, and runs without Python and Triton.

TensorRT passes a kernel its inputs' pointers, int32 numbers that are expressions of shapes, and its output's pointer.
"""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Callable
from types import GenericAlias, ModuleType
from typing import Any

from consisid_runtime.engines.tensorrt_library import load
from consisid_runtime.errors import ExportRefused, MissingExtra

NAMESPACE = "consisid"


@functools.cache
def register_plugins(architecture: int) -> None:
    """Register both plugins with TensorRT, for all later builds of this process.

    Args:
        architecture: compute capability as a number, such as 90. A process builds for one; TensorRT refuses a second.

    Raises `MissingExtra` without TensorRT or Triton, `ExportRefused` for an architecture without kernels.
    """
    kernels = _kernels(architecture)
    _, trt = load("tensorrt")
    importlib.import_module("numpy.typing")  # TensorRT 11.4 reads attributes with it, without importing it
    plugin = importlib.import_module("tensorrt.plugin")
    dtypes = {trt.DataType.HALF: "fp16", trt.DataType.BF16: "bf16"}

    def describe_joint(q: Any, k: Any, v: Any) -> Any:
        """q [B, H, M, D], k and v [B, H, N, D] → [B, M, H, D]"""
        branches, heads, tokens, size = q.shape_expr
        return plugin.from_shape_expr((branches, tokens, heads, size), q.dtype)

    def tune_joint(q: Any, k: Any, v: Any, outputs: Any) -> Any:
        return [_formats(plugin, 4)]

    def launch_joint(q: Any, k: Any, v: Any, outputs: Any, tactic: int) -> Any:
        variant = kernels.joint_attention(_name(dtypes, q), _constant(q, 3), architecture)
        branches, heads, tokens, _ = q.shape_expr
        return _launch(plugin, variant, architecture, (tokens, branches * heads), (tokens, k.shape_expr[2], heads))

    def describe_face(x: Any, weight: Any, bias: Any, keys: Any, values: Any, heads: int, epsilon: float) -> Any:
        """x [B, N, C], weight and bias [C], keys [C, heads·Q], values [heads·Q, C] → [B, N, C]"""
        return x.like()

    def tune_face(x: Any, weight: Any, bias: Any, keys: Any, values: Any, outputs: Any) -> Any:
        return [_formats(plugin, 6)]

    def launch_face(
        x: Any, weight: Any, bias: Any, keys: Any, values: Any, heads: int, epsilon: float, outputs: Any, tactic: int
    ) -> Any:
        channels, slots = _constant(keys, 0), _constant(keys, 1)
        variant = kernels.face_attention(_name(dtypes, x), channels, slots, heads, epsilon, architecture)
        branches, tokens, _ = x.shape_expr
        return _launch(plugin, variant, architecture, (tokens, branches), (tokens,))

    _register(plugin, "joint_attention", (describe_joint, tune_joint, launch_joint), {})
    attributes: dict[str, object] = {"heads": int, "epsilon": float}
    _register(plugin, "face_attention", (describe_face, tune_face, launch_face), attributes)


def _kernels(architecture: int) -> ModuleType:
    try:
        from consisid_kernels.compile import tensorrt
        from consisid_kernels.variant import MATRIX
    except ImportError as error:
        raise MissingExtra(
            f"attention plugins need Triton: pip install 'consisid-runtime[kernels]' ({error})"
        ) from error
    if architecture not in MATRIX:
        known = ", ".join(f"sm_{number}" for number in MATRIX)
        raise ExportRefused(f"there are no attention plugins for sm_{architecture}; there are for {known}")
    return tensorrt


def _register(plugin: Any, name: str, functions: tuple[Callable[..., Any], ...], attributes: dict[str, object]) -> None:
    """Annotate the functions with TensorRT's classes, which exist only once it is imported, and register them."""
    tensor = plugin.TensorDesc
    known = attributes | {"outputs": GenericAlias(tuple, (tensor,)), "tactic": int}
    registrars = (plugin.register, plugin.autotune, plugin.aot_impl)
    returned = (
        tensor,
        GenericAlias(list, (plugin.AutoTuneCombination,)),
        GenericAlias(tuple, (str, str, plugin.KernelLaunchParams, plugin.SymIntExprs)),
    )
    for register, function, result in zip(registrars, functions, returned, strict=True):
        arguments = {argument: known.get(argument, tensor) for argument in inspect.signature(function).parameters}
        function.__annotations__ = arguments | {"return": result}
        register(f"{NAMESPACE}::{name}")(function)


def _formats(plugin: Any, tensors: int) -> Any:
    """All tensors of one type, contiguous."""
    return plugin.AutoTuneCombination(", ".join(["FP16|BF16"] * tensors), "LINEAR")


def _launch(
    plugin: Any, variant: Any, architecture: int, rows: tuple[Any, Any], numbers: tuple[Any, ...]
) -> tuple[str, str, Any, Any]:
    """What `aot_impl` returns for a kernel whose blocks take BLOCK_M of the first rows, and one of the second."""
    from consisid_kernels.compile.ptx import tensorrt_kernel

    kernel = tensorrt_kernel(variant, architecture)
    params = plugin.KernelLaunchParams()
    params.grid_x = plugin.cdiv(rows[0], variant.constants["BLOCK_M"])
    params.grid_y = rows[1]
    params.block_x = kernel.threads
    params.shared_mem = kernel.shared
    extra = plugin.SymIntExprs(len(numbers))
    for i, number in enumerate(numbers):
        extra[i] = plugin.SymInt32(number)
    return kernel.name, kernel.ptx, params, extra


def _name(dtypes: dict[Any, str], tensor: Any) -> str:
    if tensor.dtype not in dtypes:
        raise ExportRefused(f"an attention plugin got {tensor.dtype}; its kernels are for {', '.join(dtypes.values())}")
    return dtypes[tensor.dtype]


def _constant(tensor: Any, axis: int) -> int:
    extent = tensor.shape_expr[axis]
    if not extent.is_constant:
        raise ExportRefused(f"axis {axis} of an attention plugin's input varies; its kernel is compiled for one size")
    return int(extent.constant_value())
