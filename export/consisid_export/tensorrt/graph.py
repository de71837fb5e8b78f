"""Adapts an ONNX graph to TensorRT: sizes that are fixed become numbers, and Attention gets TensorRT's attributes."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import helper

from consisid_export.tensorrt.plugin_graph import use_plugins
from consisid_export.tensorrt.ranges import Profile
from consisid_runtime.signatures import Signature


def tensorrt_graph(
    path: Path, signature: Signature, profiles: tuple[Profile, ...], plugins: bool = False
) -> onnx.ModelProto:
    """`path`'s graph for TensorRT; its external weights stay where they are.

    Args:
        signature: bound to the checkpoint's sizes.
        profiles: sizes that are the same in all of them become numbers in the graph.
        plugins: attentions become nodes of this project's plugins.
    """
    model = onnx.load(path, load_external_data=False)
    if plugins:
        use_plugins(model)
    _translate_attention(model)
    fixed = {
        symbol: extent.minimum
        for symbol, extent in profiles[0].items()
        if extent.static and all(profile[symbol] == extent for profile in profiles)
    }
    for value, port in zip(model.graph.input, signature.bind(fixed).inputs, strict=True):
        for dim, size in zip(value.type.tensor_type.shape.dim, port.shape, strict=True):
            if isinstance(size, int):
                dim.dim_value = size
    return model


def _translate_attention(model: onnx.ModelProto) -> None:
    """Add the attribute of Attention that TensorRT requires, and remove the one that it rejects.

    TensorRT has no fused float32 attention, so that float32 has to be declared decomposable, by an attribute that is
    not in the ONNX standard. It rejects `softmax_precision`: the softmax of a fused kernel has the precision that
    TensorRT chooses, whose error is still to be measured on a GPU.
    """
    nodes = [node for node in model.graph.node if node.op_type == "Attention" and not node.domain]
    types = _element_types(model.graph)
    if any(node.input[0] not in types for node in nodes):
        types = _element_types(onnx.shape_inference.infer_shapes(model).graph)
    for node in nodes:
        kept = [attribute for attribute in node.attribute if attribute.name != "softmax_precision"]
        del node.attribute[:]
        node.attribute.extend(kept)
        if types.get(node.input[0]) == onnx.TensorProto.FLOAT:
            node.attribute.append(helper.make_attribute("TRT_decomposable", 1))


def _element_types(graph: onnx.GraphProto) -> dict[str, int]:
    values = [*graph.input, *graph.value_info, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in graph.initializer}
