"""Matches the attentions of an exported step that the plugins compute; any other attention is an error."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NoReturn

import onnx
from onnx import NodeProto, TensorProto, helper

from consisid_runtime.errors import ExportRefused

DTYPES = (TensorProto.FLOAT16, TensorProto.BFLOAT16)
HEAD_SIZES = (64, 128)

_PLAIN_ATTENTION = {"is_causal": 0, "softcap": 0.0, "qk_matmul_output_mode": 0, "softmax_precision": TensorProto.FLOAT}
_Size = int | str


@dataclass(frozen=True)
class Match:
    """Nodes that a plugin replaces.

    Attributes:
        plugin: its name without the namespace.
        name: of the node that computes `output`, the last of those replaced.
        inputs, output: values.
        attributes: the plugin's own.
    """

    plugin: str
    name: str
    inputs: Sequence[str]
    output: str
    attributes: dict[str, Any] = field(default_factory=dict)


class Graph:
    """The producer, the consumers, the type and the shape of every value."""

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        self.producers = {name: node for node in graph.node for name in node.output}
        self.takers: dict[str, list[NodeProto]] = defaultdict(list)
        for node in graph.node:
            for name in node.input:
                self.takers[name].append(node)
        self.outputs = {value.name for value in graph.output}
        self.types: dict[str, tuple[int, tuple[_Size, ...]]] = {
            tensor.name: (tensor.data_type, tuple(tensor.dims)) for tensor in graph.initializer
        }
        for value in (*graph.value_info, *graph.input):
            tensor = value.type.tensor_type
            sizes = tuple(dim.dim_param or dim.dim_value for dim in tensor.shape.dim)
            self.types[value.name] = tensor.elem_type, sizes

    def before(self, node: NodeProto, operator: str, index: int = 0) -> NodeProto:
        """The node that computes an input of `node`, which must be its only consumer."""
        value = node.input[index]
        found = self.producers.get(value)
        if found is None or found.op_type != operator or found.domain:
            refuse(node, f"its input {value} does not come from {operator}")
        if len(self.takers[value]) != 1 or value in self.outputs:
            refuse(node, f"its input {value} is used elsewhere, too")
        return found

    def after(self, node: NodeProto, operator: str) -> NodeProto:
        """The only node that consumes the output."""
        value = node.output[0]
        takers = self.takers[value]
        if len(takers) != 1 or takers[0].op_type != operator or takers[0].domain or value in self.outputs:
            refuse(
                node, f"its output {value} goes to {', '.join(taker.op_type for taker in takers)}, not to {operator}"
            )
        return takers[0]

    def known(self, node: NodeProto, value: str, rank: int) -> tuple[int, tuple[_Size, ...]]:
        """Element type and shape of an input or output of `node`."""
        dtype, shape = self.types.get(value, (TensorProto.UNDEFINED, ()))
        if dtype == TensorProto.UNDEFINED or len(shape) != rank:
            refuse(node, f"the graph does not say that {value} has {rank} axes")
        return dtype, shape


def joint_attention(graph: Graph, attention: NodeProto) -> Match:
    """Attention without a mask, and the transposition of its heads. Raises `ExportRefused` for any other pattern."""
    transpose = graph.after(attention, "Transpose")
    q, k, v = _three(attention)
    known = [graph.known(attention, value, 4) for value in (q, k, v)]
    (dtype, q_shape), (_, k_shape), (_, v_shape) = known
    given = _attributes(attention)
    if other := {name: value for name, value in given.items() if _PLAIN_ATTENTION.get(name) != value}:
        refuse(attention, f"it has {other}")
    dtypes = {dtype for dtype, _ in known}
    if dtype not in DTYPES or len(dtypes) > 1 or given.get("softmax_precision") != TensorProto.FLOAT:
        refuse(attention, "it is not fp16 or bf16 with its softmax in fp32")
    if q_shape[3] not in HEAD_SIZES:
        refuse(attention, f"its heads have {q_shape[3]} channels, not {' or '.join(map(str, HEAD_SIZES))}")
    if v_shape != k_shape or (*q_shape[:2], q_shape[3]) != (*k_shape[:2], k_shape[3]):
        refuse(attention, f"its queries are {list(q_shape)}, keys {list(k_shape)}, values {list(v_shape)}")
    if _attributes(transpose) != {"perm": [0, 2, 1, 3]}:
        refuse(attention, f"its output is transposed by {_attributes(transpose)}")
    return Match("joint_attention", transpose.name, (q, k, v), transpose.output[0])


def face_attention(graph: Graph, softmax: NodeProto) -> Match:
    """x + softmax(LayerNorm(x) · keys) · values around a softmax of heads in float32. Raises as `joint_attention`.

    It does not matter how the reshapes around it spell the leading axes: the softmax is over the last.
    """
    widen, narrow = graph.before(softmax, "Cast"), graph.after(softmax, "Cast")
    split, join = graph.before(widen, "Reshape"), graph.after(narrow, "Reshape")
    scores, read = graph.before(split, "MatMul"), graph.after(join, "MatMul")
    norm, add = graph.before(scores, "LayerNormalization"), graph.after(read, "Add")
    x, weight, bias = _three(norm)
    keys, values = scores.input[1], read.input[1]
    if read.input[0] != join.output[0] or sorted(add.input) != sorted((x, read.output[0])):
        refuse(softmax, f"{add.name!r} does not add what is read to {x}")
    given = _attributes(norm)
    if _attributes(softmax) != {"axis": -1} or given.pop("axis", -1) != -1 or given.pop("stash_type", 1) != 1:
        refuse(softmax, "it, or the norm before it, is not over the last axis")

    dtype, (_, _, channels) = graph.known(softmax, x, 3)
    _, (_, _, heads, width) = graph.known(softmax, split.output[0], 4)
    if dtype not in DTYPES or _attributes(widen) != {"to": TensorProto.FLOAT} or _attributes(narrow) != {"to": dtype}:
        refuse(softmax, "it is not fp16 or bf16 with its softmax in fp32")
    if not (isinstance(heads, int) and isinstance(width, int) and width.bit_count() == 1):
        refuse(softmax, f"it is over {heads} heads of {width} slots, which must be a fixed power of two")
    slots = heads * width
    for value, shape in (
        (weight, (channels,)),
        (bias, (channels,)),
        (keys, (channels, slots)),
        (values, (slots, channels)),
    ):
        if graph.known(softmax, value, len(shape)) != (dtype, shape):
            refuse(softmax, f"{value} is not {list(shape)} of {TensorProto.DataType.Name(dtype)}")
    _, joined = graph.known(softmax, join.output[0], 3)
    if joined[2] != slots:
        refuse(softmax, f"its heads are joined to {joined[2]} slots, not {slots}")
    attributes = {"heads": heads, "epsilon": given.pop("epsilon", 1e-5)}
    return Match("face_attention", add.name, (x, weight, bias, keys, values), add.output[0], attributes)


def refuse(node: NodeProto, reason: str) -> NoReturn:
    raise ExportRefused(f"{node.op_type} {node.name!r} is no part of an attention that a plugin computes: {reason}")


def _three(node: NodeProto) -> tuple[str, str, str]:
    present = [name for name in node.input if name]
    if len(present) != 3:
        refuse(node, f"it has {len(present)} inputs, not 3")
    return present[0], present[1], present[2]


def _attributes(node: NodeProto) -> dict[str, Any]:
    return {attribute.name: helper.get_attribute_value(attribute) for attribute in node.attribute}
