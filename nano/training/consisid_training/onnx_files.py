"""Writes trained networks as ONNX files whose weights are stored in half precision and computed with in single."""

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
"""Values up to which a tensor stays as it is."""


def write(network: nn.Module, sample: Tensor, path: Path, input_name: str, outputs: Sequence[str]) -> None:
    """Write `network`, evaluating, for any batch of inputs like `sample` [N, …]."""
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
    # ArcFace loaders guess the input's normalisation from node names that begin with an operator's: these do not.
    for number, node in enumerate(model.graph.node):
        node.name = f"node_{number}_{node.op_type}"
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def halve(path: Path) -> None:
    """Store the weights of a file in half precision, as `write` does."""
    model = onnx.load(path)
    store_as_half(model)
    onnx.checker.check_model(model)
    path.write_bytes(model.SerializeToString(deterministic=True))


def _strip(model: onnx.ModelProto) -> None:
    """Take out what the exporter notes of where it ran: lines of code and paths."""
    graph = model.graph
    parts: list[Any] = [model, graph, *graph.node, *graph.initializer, *graph.value_info, *graph.input, *graph.output]
    for part in parts:
        del part.metadata_props[:]
        part.doc_string = ""


def store_as_half(model: onnx.ModelProto) -> None:
    """Give every larger float32 initializer as float16, and a Cast that makes it float32 again."""
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
