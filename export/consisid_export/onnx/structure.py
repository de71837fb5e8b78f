"""Checks a graph without running it: that it is well formed, and that its weights are the checkpoint's."""

from __future__ import annotations

from pathlib import Path

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.tensor_files import Stored, pieces
from consisid_export.onnx.weights import stored_weights
from consisid_runtime.errors import ExportRefused
from consisid_runtime.signatures import Signature

DTYPES: dict[int, torch.dtype] = {
    TensorProto.FLOAT: torch.float32,
    TensorProto.FLOAT16: torch.float16,
    TensorProto.BFLOAT16: torch.bfloat16,
    TensorProto.FLOAT8E4M3FN: torch.float8_e4m3fn,
    TensorProto.INT64: torch.int64,
}
KSERVE: dict[int, str] = {
    TensorProto.FLOAT: "FP32",
    TensorProto.FLOAT16: "FP16",
    TensorProto.BFLOAT16: "BF16",
    TensorProto.INT64: "INT64",
    TensorProto.INT32: "INT32",
    TensorProto.UINT8: "UINT8",
}
"""ONNX type → the name that ports and model repositories have for it."""


def check_structure(path: Path, signature: Signature) -> None:
    """Check the graph's operators, types and shapes, and that every weight lies inside its file.

    Raises `ExportRefused` naming the difference.
    """
    model = onnx.load(path, load_external_data=False)
    weights = external_weights(model, path.parent)
    # Weights become inputs: the checker accepts neither hard links to weight files nor another working directory.
    inputs = [
        helper.make_tensor_value_info(t.name, t.data_type, t.dims) for t in model.graph.initializer if t.name in weights
    ]
    rest = [tensor for tensor in model.graph.initializer if tensor.name not in weights]
    del model.graph.initializer[:]
    model.graph.input.extend(inputs)
    model.graph.initializer.extend(rest)
    try:
        onnx.checker.check_model(model)
        inferred = onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportRefused(f"{signature.name}: {error}") from error
    ports = {port.name: port for port in (*signature.inputs, *signature.outputs)}
    for value in (*model.graph.input, *model.graph.output):
        kind, port = value.type.tensor_type.elem_type, ports.get(value.name)
        if port is not None and KSERVE.get(kind) != port.dtype:
            found = TensorProto.DataType.Name(kind)
            raise ExportRefused(f"{signature.name}: {port.name} is {found}, its signature says {port.dtype}")
    for value, port in zip(inferred.graph.output, signature.outputs, strict=True):
        dims = tuple(dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim)
        if dims != port.shape:
            raise ExportRefused(f"{signature.name}: {port.name} has shape {dims}, its signature says {port.shape}")
    for name, weight in weights.items():
        if weight.length != torch.Size(weight.shape).numel() * weight.dtype.itemsize:
            raise ExportRefused(f"{signature.name}: {name} {list(weight.shape)} has {weight.length} bytes")
        if weight.file.stat().st_size < weight.offset + weight.length:
            raise ExportRefused(f"{signature.name}: {name} ends behind the end of {weight.file.name}")


def external_weights(model: onnx.ModelProto, folder: Path) -> dict[str, Stored]:
    """The locations of a graph's external weights, by name."""
    return {
        tensor.name: _external(tensor, folder)
        for tensor in model.graph.initializer
        if tensor.data_location == TensorProto.EXTERNAL
    }


def _external(tensor: TensorProto, folder: Path) -> Stored:
    at = {entry.key: entry.value for entry in tensor.external_data}
    return Stored(
        folder / at["location"], int(at["offset"]), int(at["length"]), DTYPES[tensor.data_type], tuple(tensor.dims)
    )


def compare_weights(path: Path, checkpoint: Checkpoint, module: str) -> int:
    """Compare every weight that the graph at `path`, not of fp8, refers to with the checkpoint's tensor, streamed.

    Returns the number of bytes compared. Raises `ExportRefused` naming the first weight that differs.
    """
    originals = stored_weights(module, checkpoint)
    compared = 0
    for name, weight in external_weights(onnx.load(path, load_external_data=False), path.parent).items():
        if not _equal(weight, originals[name]):
            raise ExportRefused(f"{module}: {name} in {weight.file.name} is not the checkpoint's")
        compared += weight.length
    return compared


def _equal(weight: Stored, original: Stored | Tensor) -> bool:
    if tuple(original.shape) != weight.shape:
        return False
    # Bit for bit: a NaN equals itself.
    return all(
        torch.equal(found.view(torch.uint8), wanted.to(found.dtype).view(torch.uint8))
        for found, wanted in zip(pieces(weight), pieces(original), strict=True)
    )
