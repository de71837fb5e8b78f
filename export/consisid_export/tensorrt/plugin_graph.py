"""Replaces the attentions of a step's graph by single nodes, which TensorRT's plugins (`plugins`) compute.

TensorRT's parser first looks for a plugin by the node's operator and the namespace in its attribute. ONNX Runtime lacks
these operators; `add_bodies` defines them as functions of standard ones.
"""

from __future__ import annotations

import onnx
from onnx import NodeProto, helper

from consisid_export.tensorrt.plugin_match import Graph, Match, face_attention, joint_attention
from consisid_export.tensorrt.plugins import NAMESPACE

_JOINT_ATTENTION = """
<domain: "consisid", opset_import: ["" : 23]>
joint_attention <plugin_namespace, aot> (q, k, v) => (out)
{
    attended = Attention <softmax_precision = 1> (q, k, v)
    out = Transpose <perm = [0, 2, 1, 3]> (attended)
}
"""
_FACE_ATTENTION = """
<domain: "consisid", opset_import: ["" : 23]>
face_attention <plugin_namespace, aot, heads, epsilon> (x, weight, bias, keys, values) => (out)
{
    normed = LayerNormalization <axis = -1, epsilon: float = @epsilon, stash_type = 1> (x, weight, bias)
    scores = MatMul (normed, keys)
    kept = Constant <value_ints = [0, 0]> ()
    number = Constant <value_int: int = @heads> ()
    one = Constant <value_ints = [1]> ()
    middle = Reshape (number, one)
    rest = Constant <value_ints = [-1]> ()
    split = Concat <axis = 0> (kept, middle, rest)
    of_heads = Reshape (scores, split)
    wide = Cast <to = 1> (of_heads)
    softmax = Softmax <axis = -1> (wide)
    narrow = CastLike (softmax, x)
    together = Shape (scores)
    joined = Reshape (narrow, together)
    read = MatMul (joined, values)
    out = Add (x, read)
}
"""


def use_plugins(model: onnx.ModelProto) -> None:
    """Make every attention of a step in fp16 or bf16 one node; its weights need not be loaded.

    Raises `ExportRefused` where the graph holds an attention, or a softmax, that is not what a plugin computes.
    """
    graph = Graph(model)
    matches = [joint_attention(graph, node) for node in model.graph.node if node.op_type == "Attention"]
    matches += [face_attention(graph, node) for node in model.graph.node if node.op_type == "Softmax"]
    replacing = {match.output: _node(match) for match in matches}
    nodes = [replacing.get(node.output[0], node) for node in model.graph.node]
    kept = _used(nodes, {value.name for value in model.graph.output})
    del model.graph.node[:]
    model.graph.node.extend(kept)
    produced = {name for node in kept for name in node.output}
    values = [value for value in model.graph.value_info if value.name in produced]
    del model.graph.value_info[:]
    model.graph.value_info.extend(values)
    model.opset_import.append(helper.make_opsetid(NAMESPACE, 1))


def add_bodies(model: onnx.ModelProto) -> None:
    """Define the operators of `use_plugins` as functions of standard operators, for runtimes without the plugins."""
    model.functions.extend(onnx.parser.parse_function(body) for body in (_JOINT_ATTENTION, _FACE_ATTENTION))


def _node(match: Match) -> NodeProto:
    return helper.make_node(
        match.plugin,
        match.inputs,
        [match.output],
        name=match.name,
        domain=NAMESPACE,
        plugin_namespace=NAMESPACE,
        aot=1,
        **match.attributes,
    )


def _used(nodes: list[NodeProto], wanted: set[str]) -> list[NodeProto]:
    """The nodes that `wanted` values come from; `nodes` are sorted and have no subgraphs."""
    kept = []
    for node in reversed(nodes):
        if wanted & set(node.output):
            kept.append(node)
            wanted = wanted | set(node.input)
    return kept[::-1]
