"""Builds PyTorch modules into TensorRT engines by torch-tensorrt.

Written against torch-tensorrt 2.13 and 2.14; not yet executed, since it needs a GPU and NVIDIA's package index.
"""

from __future__ import annotations

import importlib
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from consisid_export.tensorrt.build import chosen_profiles
from consisid_export.tensorrt.ranges import Profile, Range, shape_range
from consisid_runtime.engines.tensorrt_library import load, log_of, reasons
from consisid_runtime.errors import ExportRefused, MissingExtra
from consisid_runtime.files.atomic import write_file
from consisid_runtime.plan import Geometry
from consisid_runtime.signatures import Port, Signature

MATCHING = {
    "2.11": ("2.11", "10.15"),
    "2.12": ("2.12", "10.16"),
    "2.13": ("2.13", "11.0"),
    "2.14": ("2.14", "11.1"),
}
"""torch-tensorrt → the PyTorch and the TensorRT it was compiled for; no other pair loads."""

_DTYPES = {"FP32": torch.float32, "FP16": torch.float16, "BF16": torch.bfloat16, "INT64": torch.int64}


def build_engine_with_torch(
    module: nn.Module,
    signature: Signature,
    sizes: Geometry | tuple[Profile, ...],
    out_path: str | Path,
    *,
    dynamic: bool = False,
    timing_cache: str | Path | None = None,
) -> dict[str, Any]:
    """Build `module` into an engine for this machine's GPU; `out_path` is written atomically.

    Args:
        module: takes the signature's inputs positionally; its own dtypes decide each operation's precision.
        signature, sizes, dynamic, timing_cache: as in `tensorrt.build_engine`. The profiles become one: torch-tensorrt
            knows a single range for each input.

    Returns a record as `tensorrt.build_engine` does, with the engine's own tensor names under "bindings".
    Raises `MissingExtra` naming the versions that fit together, `ExportRefused` where the network cannot be converted.
    """
    torch_tensorrt = load_library()
    name, trt = load("tensorrt")
    started = time.monotonic()
    ranges = _merged(chosen_profiles(signature, sizes, dynamic=dynamic))
    shapes = {port.name: shape_range(port, ranges) for port in signature.inputs}
    inputs = [
        torch_tensorrt.Input(min_shape=least, opt_shape=tuned, max_shape=most, dtype=_DTYPES[port.dtype])
        if least != most
        else torch_tensorrt.Input(shape=tuned, dtype=_DTYPES[port.dtype])
        for port, (least, tuned, most) in zip(signature.inputs, shapes.values(), strict=True)
    ]
    options = {} if timing_cache is None else {"timing_cache_path": str(timing_cache)}
    try:
        plan = torch_tensorrt.dynamo.convert_exported_program_to_serialized_trt_engine(
            export_program(module.cuda(), signature, ranges, device="cuda"),
            arg_inputs=inputs,
            disable_tf32=True,
            require_full_compilation=True,
            **options,
        )
    except Exception as error:  # it has no base class of its own
        raise ExportRefused(f"{signature.name}: torch-tensorrt cannot convert the network: {error}") from error
    bindings = _bindings(trt, plan, signature)
    write_file(out_path, plan, parents=True)
    major, minor = torch.cuda.get_device_capability()
    return {
        "library": name,
        "version": trt.__version__,
        "builder": f"torch-tensorrt {version('torch-tensorrt')}",
        "architectures": [f"sm_{major}{minor}"],
        "profiles": [{port: [list(shape) for shape in found] for port, found in shapes.items()}],
        "bindings": bindings,
        "seconds": round(time.monotonic() - started, 3),
    }


def export_program(
    module: nn.Module, signature: Signature, ranges: Profile, *, device: str = "cpu"
) -> torch.export.ExportedProgram:
    """`module` traced with those axes dynamic that vary in `ranges`."""
    fixed = {symbol: extent.minimum for symbol, extent in ranges.items() if extent.static}
    # A size that the tracer sees as 1 becomes a constant.
    traced = {symbol: max(extent.optimum, 2) for symbol, extent in ranges.items() if not extent.static}
    bound = signature.bind(fixed)
    inputs = tuple(_input(port.bind(traced), device) for port in bound.inputs)
    shapes: Any = torch.export.ShapesCollection()  # type: ignore[no-untyped-call]
    for port, tensor in zip(bound.inputs, inputs, strict=True):
        if port.dynamic_axes:
            shapes[tensor] = {axis: torch.export.Dim.DYNAMIC for axis in port.dynamic_axes}
    with torch.no_grad():
        return torch.export.export(module.eval(), inputs, dynamic_shapes=shapes)


def load_library() -> Any:
    """torch_tensorrt. Raises `MissingExtra` naming the versions that fit together, or without a GPU."""
    try:
        library = importlib.import_module("torch_tensorrt")
    except (ImportError, OSError, AssertionError) as missing:  # a CPU build of PyTorch fails its assertions
        pairs = ", ".join(
            f"torch-tensorrt {own} with torch {of_torch} and tensorrt {trt}"
            for own, (of_torch, trt) in MATCHING.items()
        )
        raise MissingExtra(
            f"engine 'torch-tensorrt' needs torch-tensorrt and the versions it was compiled for: {pairs}; here is "
            f"torch {torch.__version__}. pip install 'consisid-runtime[torch-tensorrt]' where NVIDIA's package index "
            f"is reachable ({missing})"
        ) from missing
    if not torch.cuda.is_available():
        raise MissingExtra("engine 'torch-tensorrt' needs an NVIDIA GPU and a CUDA build of PyTorch")
    return library


def _input(port: Port, device: str) -> Tensor:
    shape = [int(size) for size in port.shape]
    return torch.zeros(shape, dtype=_DTYPES[port.dtype], device=device)


def _merged(found: tuple[Profile, ...]) -> Profile:
    """One profile that spans several, tuned for the first."""
    return {
        symbol: Range(
            min(profile[symbol].minimum for profile in found),
            found[0][symbol].optimum,
            max(profile[symbol].maximum for profile in found),
        )
        for symbol in found[0]
    }


def _bindings(trt: Any, plan: bytes, signature: Signature) -> dict[str, str]:
    """Port → its name in the engine: torch-tensorrt renames tensors and keeps their order."""
    log = log_of(trt)
    runtime = trt.Runtime(log)
    engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        raise ExportRefused(f"{signature.name}: TensorRT cannot load the engine just built:\n{reasons(log)}")
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    taken = [name for name in names if engine.get_tensor_mode(name) == trt.TensorIOMode.INPUT]
    given = [name for name in names if name not in taken]
    ports = [port.name for port in (*signature.inputs, *signature.outputs)]
    return dict(zip(ports, [*taken, *given], strict=True))
