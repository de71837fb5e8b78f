"""Quantises linear layers to 8-bit floating point (E4M3): their weights in a file, and the nodes in the graph.

Values q in E4M3 stand for s·q. Weights have one scale s for each output channel, max |w| / 448; a layer's input has one
for the whole tensor, from the largest value seen in calibration; larger inputs saturate. 448 is the largest
E4M3 number (Micikevicius et al. 2022, "FP8 Formats for Deep Learning").
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path

import onnx_ir
import torch
from torch import Tensor, nn

from consisid_export.checkpoint.tensor_files import Stored, pieces, stored_tensors, write_tensors

FLOAT8 = torch.float8_e4m3fn
LARGEST = torch.finfo(FLOAT8).max
SCALE = torch.float16
"""The dtype of scales and of everything that is not quantised: ONNX Runtime quantises fp16 and fp32, not bf16."""

Ranges = Mapping[str, float]
"""Layer → the largest absolute value of its input."""

LARGEST_INPUT = torch.finfo(SCALE).max
"""The largest input of a layer: larger values are infinite in fp16."""

_SMALLEST_SCALE = torch.finfo(SCALE).smallest_normal
_LARGEST_SCALE = 146.125  # the largest whose product with 448 is finite in fp16


def quantised_layers(step: nn.Module) -> dict[str, nn.Linear]:
    """The linear layers of a step's blocks: nearly all of its weights and of its arithmetic outside attention."""
    prefix = "transformer_blocks."
    found = {name: module for name, module in step.named_modules() if name.startswith(prefix)}
    return {name: module for name, module in found.items() if isinstance(module, nn.Linear)}


def scale_of(largest: Tensor) -> Tensor:
    """The scale with which E4M3 reaches `largest`, fp16 and normal there: GPUs may take smaller numbers for zero.

    Where `largest` is below 0.027, the scale is that of 0.027; E4M3 keeps its precision down to a 28,000th of that.
    """
    return (largest.float() / LARGEST).clamp(_SMALLEST_SCALE, _LARGEST_SCALE).to(SCALE)


def quantise(x: Tensor, scale: Tensor) -> Tensor:
    """x / scale to the nearest E4M3 number, saturating; scale broadcasts."""
    return (x.float() / scale.float()).clamp(-LARGEST, LARGEST).to(FLOAT8)


def dequantise(q: Tensor, scale: Tensor) -> Tensor:
    return q.to(SCALE) * scale


def write_quantised(path: Path, weights: Mapping[str, Stored | Tensor], ranges: Ranges) -> dict[str, Stored]:
    """Write the tensors that quantised layers need into a safetensors file, one weight in memory at a time.

    Args:
        weights: layer → its weight [out, in].
        ranges: for each layer of `weights`.

    Returns where they lie: for each layer "weight" E4M3 [out, in], "weight_scale" fp16 [out], "input_scale" fp16 [].
    """
    tensors: dict[str, Tensor] = {}
    layout: dict[str, tuple[torch.dtype, tuple[int, ...]]] = {}
    for layer, weight in weights.items():
        tensors[f"{layer}.weight_scale"] = scale_of(_whole(weight).abs().amax(dim=1))
        tensors[f"{layer}.input_scale"] = scale_of(torch.tensor(ranges[layer]))
        layout[f"{layer}.weight"] = FLOAT8, tuple(weight.shape)
    layout |= {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}

    def values(name: str) -> Iterator[Tensor]:
        if name in tensors:
            yield tensors[name].flatten()
        else:
            scale = tensors[f"{name}_scale"][:, None]
            yield quantise(_whole(weights[name.removesuffix(".weight")]), scale).flatten()

    write_tensors(path, layout, values)
    return stored_tensors(path)


def insert_quantisation(model: onnx_ir.Model, layers: Collection[str]) -> None:
    """Put QuantizeLinear and DequantizeLinear before the Gemm of every layer; layers of one input share its pair.

    The initializers `write_quantised` speaks of are declared; their values are left to the caller.
    """
    graph = model.graph
    inputs: dict[onnx_ir.Value, onnx_ir.Value] = {}
    for layer in layers:
        weight = graph.initializers[f"{layer}.weight"]
        (gemm,) = weight.consumers()
        rows = gemm.inputs[0]
        assert gemm.op_type == "Gemm" and gemm.inputs[1] is weight and rows is not None and weight.shape is not None
        weight.type = onnx_ir.TensorType(onnx_ir.DataType.FLOAT8E4M3FN)
        wide = _node("DequantizeLinear", weight, _scale(graph, f"{layer}.weight_scale", weight.shape[:1]), axis=0)
        nodes = [wide]
        if rows not in inputs:
            scale = _scale(graph, f"{layer}.input_scale", ())
            narrow = _node("QuantizeLinear", rows, scale, output_dtype=int(onnx_ir.DataType.FLOAT8E4M3FN))
            back = _node("DequantizeLinear", narrow.outputs[0], scale)
            nodes += [narrow, back]
            inputs[rows] = back.outputs[0]
        graph.insert_before(gemm, nodes)
        gemm.replace_input_with(0, inputs[rows])
        gemm.replace_input_with(1, wide.outputs[0])


def simulate(step: nn.Module, ranges: Ranges) -> nn.Module:
    """A copy of a float32 step that computes what `insert_quantisation` says, in PyTorch's own arithmetic."""
    network = copy.deepcopy(step).to(SCALE)
    originals = quantised_layers(step)
    for name, layer in quantised_layers(network).items():
        weight = originals[name].weight
        scale = scale_of(weight.abs().amax(dim=1))[:, None]
        layer.weight.copy_(dequantise(quantise(weight, scale), scale))
        layer.register_forward_pre_hook(_Rounding(scale_of(torch.tensor(ranges[name]))))
    return network


class _Rounding:
    """Rounds a layer's input to E4M3."""

    def __init__(self, scale: Tensor) -> None:
        self._scale = scale

    def __call__(self, layer: nn.Module, arguments: tuple[Tensor]) -> tuple[Tensor]:
        scale = self._scale.to(arguments[0].device)
        return (dequantise(quantise(arguments[0], scale), scale),)


def _whole(weight: Stored | Tensor) -> Tensor:
    return torch.cat([piece.float() for piece in pieces(weight)]).reshape(weight.shape)


def _node(operator: str, value: onnx_ir.Value, scale: onnx_ir.Value, **attributes: int) -> onnx_ir.Node:
    return onnx_ir.node(operator, [value, scale], attributes)


def _scale(graph: onnx_ir.Graph, name: str, shape: Iterable[int | onnx_ir.SymbolicDim]) -> onnx_ir.Value:
    type_ = onnx_ir.TensorType(onnx_ir.DataType.FLOAT16)
    scale = graph.initializers[name] = onnx_ir.Value(name=name, shape=onnx_ir.Shape(shape), type=type_)
    return scale
