"""Defines "fp16", "bf16" and "fp8" for each module. The types are written into the graph, and TensorRT keeps them.

Weights, and all that matrices and convolutions touch, have the precision's dtype, and so have the caches of the VAE's
decoder, which one chunk leaves to the next. All other ports stay float32. In float32 remain

- the statistics of every norm: their operators' `stash_type` says so;
- the softmax of every attention (`softmax_in_float32`, and `dit.face_attention`);
- the rotation of queries and keys, and the timesteps' sinusoids, whose arguments reach 1000 rad;
- T5's residual stream, and in fp16 the matrix that closes its feed-forward: both leave fp16's range in T5-XXL;
- the modules of `FLOAT32_MODULES`, as in the reference: together 0.4 % of the weights, and one of them answers with
  labels, which a rounded score flips.

The time path, the adaptive norms, `prepare` and the output projection have the precision's dtype: in float32 they made
no noticeable difference to the error of a random transformer, in either precision, at twice their size.

In a graph "fp8" is fp16 but for the linear layers of the transformer's blocks (`fp8.py`), where a step's time goes;
what runs once a request gains little by it. The time path, the patch embedding and the output projection stay in fp16
with the rest.
"""

from __future__ import annotations

import onnx_ir
import torch

from consisid_runtime.errors import InvalidOption

PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.float16}
"""Name of a precision → the dtype of everything that is not quantised."""

FLOAT32_MODULES = ("aligner", "parser")
QUANTISED_MODULES = ("dit_step",)


def module_precision(module: str, precision: str, *, beside_fp8: str = "fp16") -> str:
    """The precision of one module in a bundle of this `precision`; `beside_fp8` is that of those fp8 does not quantise.

    Raises `InvalidOption` for an unknown precision.
    """
    if precision not in PRECISIONS:
        raise InvalidOption(f"precision must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    if module in FLOAT32_MODULES:
        return "fp32"
    return beside_fp8 if precision == "fp8" and module not in QUANTISED_MODULES else precision


def exported_dtype(module: str, precision: str) -> torch.dtype:
    """The dtype that a module's weights are exported in, unless quantised. Raises what `module_precision` raises."""
    return PRECISIONS[module_precision(module, precision)]


def softmax_in_float32(model: onnx_ir.Model) -> None:
    """Set `softmax_precision` on every Attention with narrower queries, whose dtype would otherwise apply."""
    for node in model.graph.all_nodes():
        if node.op_type == "Attention" and node.inputs[0] and node.inputs[0].dtype != onnx_ir.DataType.FLOAT:
            node.attributes.add(onnx_ir.AttrInt64("softmax_precision", onnx_ir.DataType.FLOAT))
