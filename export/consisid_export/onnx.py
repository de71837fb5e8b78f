"""PyTorch module + signature → `.onnx` file, with the dynamic axes that the signature declares."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import onnx
import torch
from torch import nn

from consisid_export.samples import TRACE_SIZES, sample_inputs
from consisid_runtime.errors import ExportRefused
from consisid_runtime.signatures import Port, Signature

OPSET = 23
"""First opset with an Attention operator: below it a full-size step would hold 60 GB of attention scores a layer."""

_PROTOBUF_LIMIT = 2**31 - 1


def export_onnx(network: nn.Module, signature: Signature, path: Path) -> None:
    """Trace `network` and write it to `path`.

    Args:
        network: takes the signature's inputs positionally, returns its outputs as a tuple (or one tensor).
        signature: bound to the checkpoint's sizes; what is still symbolic becomes a dynamic axis of that name.

    Raises `ExportRefused` when the written file has an axis fixed that the signature declares dynamic: PyTorch's
    exporter falls back to a static graph without an error.
    """
    inputs = sample_inputs(signature, TRACE_SIZES)
    with _quiet(), torch.no_grad():
        program = torch.onnx.export(
            network.eval(),
            tuple(inputs.values()),
            dynamo=True,
            opset_version=OPSET,
            input_names=[port.name for port in signature.inputs],
            output_names=[port.name for port in signature.outputs],
            dynamic_shapes=_dynamic_shapes(network, signature),
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    _name_axes(model.graph.input, signature.inputs, signature.name)
    _name_axes(model.graph.output, signature.outputs, signature.name)
    onnx.save(
        model,
        path,
        save_as_external_data=model.ByteSize() > _PROTOBUF_LIMIT // 2,
        location=f"{path.name}.data",
    )


def _dynamic_shapes(network: nn.Module, signature: Signature) -> tuple[object, ...]:
    """What varies, in the structure of `forward`'s arguments: those of a `*rest` are one tuple."""
    axes = [{axis: torch.export.Dim.DYNAMIC for axis in port.dynamic_axes} for port in signature.inputs]
    parameters = list(inspect.signature(network.forward).parameters.values())
    if parameters[-1].kind is inspect.Parameter.VAR_POSITIONAL:
        named = len(parameters) - 1
        return (*axes[:named], tuple(axes[named:]))
    return tuple(axes)


def _name_axes(values: Sequence[onnx.ValueInfoProto], ports: Sequence[Port], module: str) -> None:
    """Give every dynamic axis its symbol from the signature; refuse an axis that the tracer fixed, or left open."""
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
    """Hold back the exporter's chatter; errors still propagate."""
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
