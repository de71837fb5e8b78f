"""Writes trained networks as ONNX files that store weights in half precision and compute in single precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn

_SMALL = 64
"""Number of values up to which a tensor stays in single precision."""


def write(network: nn.Module, sample: Tensor, path: Path, input_name: str, outputs: Sequence[str]) -> None:
    """Write `network` in evaluation mode, with a dynamic batch axis; `sample` [N, …] gives the other axes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    program = torch.onnx.export(
        network.eval(), (sample,), dynamo=True, opset_version=18, input_names=[input_name], output_names=list(outputs),
        dynamic_shapes=({0: torch.export.Dim("batch")},), verbose=False,
    )  # fmt: skip
    assert program is not None
    program.optimize()
    model = program.model_proto
    store_as_half(model)
    _strip(model)
    # insightface's ArcFace loader infers the input's normalisation from node names that begin with "Sub" or "Mul".
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}_{node.op_type}"
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def halve(path: Path) -> None:
    """Store the weights of an ONNX file in half precision."""
    model = onnx.load(path)
    store_as_half(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Remove the exporter's metadata, which contains source lines and paths."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


def store_as_half(model: onnx.ModelProto) -> None:
    """Store every float32 initializer of more than `_SMALL` values as float16, followed by a Cast to float32."""
    graph, casts = model.graph, []
    for tensor in graph.initializer:
        values = numpy_helper.to_array(tensor)
        if tensor.data_type != TensorProto.FLOAT or values.size <= _SMALL:
            continue
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(values.astype(np.float16), f"{name}_half"))
        casts.append(helper.make_node("Cast", [f"{name}_half"], [name], to=TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)
