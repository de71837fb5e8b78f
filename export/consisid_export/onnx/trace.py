"""Traces a PyTorch module into an `.onnx` file, with the dynamic axes that its signature declares."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import onnx
import onnx_ir
import torch
from onnx_ir.passes import common
from onnxscript import opset23
from onnxscript.optimizer import fold_constants
from torch import nn
from torch._subclasses.fake_tensor import FakeTensor

from consisid_export.checkpoint.tensor_files import Stored
from consisid_export.onnx.fp8 import insert_quantisation
from consisid_export.onnx.precision import softmax_in_float32
from consisid_export.onnx.samples import TRACE_SIZES, sample_inputs
from consisid_runtime.errors import ExportRefused
from consisid_runtime.signatures import Port, Signature

OPSET = 23
"""First opset with an Attention operator: below it a full-size step would hold 60 GB of attention scores a layer."""

_DTYPES = {
    torch.float32: onnx_ir.DataType.FLOAT,
    torch.float16: onnx_ir.DataType.FLOAT16,
    torch.bfloat16: onnx_ir.DataType.BFLOAT16,
    torch.float8_e4m3fn: onnx_ir.DataType.FLOAT8E4M3FN,
    torch.int64: onnx_ir.DataType.INT64,
}


def export_onnx(
    network: nn.Module,
    signature: Signature,
    path: Path,
    weights: Mapping[str, Stored] | None = None,
    quantised: Collection[str] = (),
) -> None:
    """Trace `network` and write it to `path`.

    Args:
        network: takes the signature's inputs positionally, returns its outputs as a tuple (or one tensor).
        signature: bound to the checkpoint's sizes; what is still symbolic becomes a dynamic axis of that name.
        weights: where the values of the network's parameters lie, by their names; the graph refers to them there. The
            files must be in `path`'s folder, and the network may then consist of fake tensors. Without `weights` the
            values are written into the graph, which can hold 2 GB.
        quantised: linear layers that compute in fp8; `weights` holds their tensors as `fp8.write_quantised` has them.

    Raises `ExportRefused` when the network cannot be traced, or when the written file has an axis fixed that the
    signature declares dynamic: PyTorch's exporter may fall back to a static graph without an error.
    """
    try:
        model = _trace(network, signature)
    except torch.onnx.OnnxExporterError as error:
        reason = " ".join(str(error.__cause__ or error).split())
        raise ExportRefused(f"{signature.name} cannot be traced with its dynamic sizes: {reason}") from error
    values = _take_values(model, network)
    with _quiet():
        _simplify(model)
    softmax_in_float32(model)
    insert_quantisation(model, quantised)
    for name, initializer in model.graph.initializers.items():
        if initializer.const_value is None:
            initializer.const_value = _external(name, weights[name]) if weights else values[name]
    proto = onnx_ir.to_proto(model)
    _name_axes(proto.graph.input, signature.inputs, signature.name)
    _name_axes(proto.graph.output, signature.outputs, signature.name)
    path.write_bytes(proto.SerializeToString())


def _trace(network: nn.Module, signature: Signature) -> onnx_ir.Model:
    fakes = [tensor for tensor in network.state_dict().values() if isinstance(tensor, FakeTensor)]
    inputs = sample_inputs(signature, TRACE_SIZES)
    with _quiet(), torch.no_grad(), fakes[0].fake_mode if fakes else contextlib.nullcontext():
        program = torch.onnx.export(
            network.eval(),
            tuple(torch.empty_like(tensor) for tensor in inputs.values()),
            dynamo=True,
            optimize=False,
            opset_version=OPSET,
            input_names=[port.name for port in signature.inputs],
            output_names=[port.name for port in signature.outputs],
            dynamic_shapes=_dynamic_shapes(network, signature),
            custom_translation_table={torch.ops.aten.linear.default: _linear},
            verbose=False,
        )
    assert program is not None
    for node in program.model.graph.all_nodes():
        node.metadata_props.clear()  # stack traces with paths of this machine
    return program.model


def _linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """x [..., in], weight [out, in] as PyTorch stores it → [..., out].

    PyTorch's own translation transposes the weight, which ONNX Runtime then does each time it loads the graph, with
    both forms in memory.
    """
    op: Any = opset23
    out, features = weight.shape
    if len(x.shape) == 2:
        return op.Gemm(x, weight, bias, transB=1)
    rows = op.Gemm(op.Reshape(x, op.Constant(value_ints=[-1, features])), weight, bias, transB=1)
    return op.Reshape(rows, op.Concat(op.Shape(x, end=-1), op.Constant(value_ints=[out]), axis=0))


def _simplify(model: onnx_ir.Model) -> None:
    """Fold constants and remove unused nodes, in a model whose weights have no values.

    Without the rewrite rules of `onnxscript.optimizer.optimize`: their time grows with the square of the model, and in
    these graphs they only join reshapes, which cost nothing.
    """
    fold_constants(model)
    passes = (
        common.RemoveUnusedNodesPass(),
        common.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        common.DeduplicateInitializersPass(),
        common.CommonSubexpressionEliminationPass(),
        common.OutputFixPass(),
        common.NameFixPass(),
    )
    onnx_ir.passes.Sequential(*passes)(model)


def _take_values(model: onnx_ir.Model, network: nn.Module) -> dict[str, onnx_ir.TensorProtocol]:
    """Remove the network's own values from the model and return them; constants made by tracing stay."""
    values = {}
    for name in network.state_dict():
        if name in model.graph.initializers:
            initializer = model.graph.initializers[name]
            assert initializer.const_value is not None
            values[name], initializer.const_value = initializer.const_value, None
    return values


def _external(name: str, stored: Stored) -> onnx_ir.ExternalTensor:
    return onnx_ir.ExternalTensor(
        stored.file.name,
        stored.offset,
        stored.length,
        _DTYPES[stored.dtype],
        shape=onnx_ir.Shape(stored.shape),
        name=name,
        base_dir=stored.file.parent,
    )


def _dynamic_shapes(network: nn.Module, signature: Signature) -> tuple[object, ...]:
    """Dynamic axes in the structure of `forward`'s arguments: those of a `*rest` are one tuple."""
    axes = [{axis: torch.export.Dim.DYNAMIC for axis in port.dynamic_axes} for port in signature.inputs]
    parameters = list(inspect.signature(network.forward).parameters.values())
    if parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
        named = len(parameters) - 1
        return (*axes[:named], tuple(axes[named:]))
    return tuple(axes)


def _name_axes(values: Sequence[onnx.ValueInfoProto], ports: Sequence[Port], module: str) -> None:
    """Name every dynamic axis by its symbol; raise `ExportRefused` for an axis that the tracer fixed or left open."""
    found = [value.name for value in values]
    wanted = [port.name for port in ports]
    if found != wanted:
        raise ExportRefused(f"{module}: the graph has tensors {found}, its signature says {wanted}")
    for value, port in zip(values, ports, strict=True):
        dims = value.type.tensor_type.shape.dim
        for axis, (dim, size) in enumerate(zip(dims, port.shape, strict=True)):
            fixed = dim.HasField("dim_value")
            if isinstance(size, str) and fixed:
                raise ExportRefused(
                    f"{module}: {port.name} axis {axis} must be dynamic ({size}) but the exporter fixed it to "
                    f"{dim.dim_value}; the module specialises on that size"
                )
            if isinstance(size, int) and fixed and dim.dim_value != size:
                raise ExportRefused(f"{module}: {port.name} axis {axis} is {dim.dim_value}, its signature says {size}")
            if isinstance(size, str):
                dim.dim_param = size
            else:
                dim.dim_value = size


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the exporter's output and warnings; errors still propagate."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir", "torch.export")]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
