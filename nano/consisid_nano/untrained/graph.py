"""Builds ONNX graphs: generates node names and stores equal constants once."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import helper, numpy_helper

from consisid_export import __name__ as producer

_OPSET = 17
_IR = 8
FLOAT = onnx.TensorProto.FLOAT


class Graph:
    """An ONNX graph under construction. Methods take and return names of tensors."""

    def __init__(self) -> None:
        self._nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], onnx.TensorProto] = {}

    def constant(self, value: npt.ArrayLike, dtype: npt.DTypeLike = np.float32) -> str:
        array = np.ascontiguousarray(value, dtype)
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = numpy_helper.from_array(array, f"constant_{len(self._constants)}")
        return str(self._constants[key].name)

    def integers(self, *values: int) -> str:
        return self.constant(values, np.int64)

    def add(self, operator: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        """Append one node and return its output's name."""
        number = len(self._nodes)
        output = output or f"tensor_{number}"
        # insightface's ArcFace loader infers the input's normalisation from node names that begin with "Sub" or "Mul".
        name = f"node_{number}_{operator}"
        self._nodes.append(helper.make_node(operator, list(inputs), [output], name=name, **attributes))
        return output

    def conv(
        self, x: str, weight: npt.ArrayLike, bias: Sequence[float] | npt.ArrayLike | None = None, stride: int = 1
    ) -> str:
        """Append a convolution, size-preserving at stride 1; `weight` is [out, in, k, k], or [out, in] for 1×1."""
        kernel = np.asarray(weight, np.float32)
        kernel = kernel.reshape(*kernel.shape, 1, 1) if kernel.ndim == 2 else kernel
        inputs = [self.constant(kernel)] + ([] if bias is None else [self.constant(bias)])
        return self.add("Conv", x, *inputs, pads=[kernel.shape[-1] // 2] * 4, strides=[stride, stride])

    def save(self, path: Path, inputs: dict[str, Sequence[int | str]], outputs: dict[str, Sequence[int | str]]) -> None:
        """Check the graph and write it; the same graph gives the same bytes."""

        def ports(sizes: dict[str, Sequence[int | str]]) -> list[onnx.ValueInfoProto]:
            return [helper.make_tensor_value_info(name, FLOAT, list(shape)) for name, shape in sizes.items()]

        graph = helper.make_graph(
            self._nodes, path.stem, ports(inputs), ports(outputs), initializer=list(self._constants.values())
        )
        model = helper.make_model(
            graph, producer_name=producer, opset_imports=[helper.make_opsetid("", _OPSET)], ir_version=_IR
        )
        onnx.checker.check_model(model)
        path.write_bytes(model.SerializeToString(deterministic=True))
