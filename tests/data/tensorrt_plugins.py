"""Plays TensorRT to our plugins, with its real Python bindings: what it would describe, choose, compile and launch.

    python tensorrt_plugins.py FOLDER ARCHITECTURE < cases.json

The bindings in FOLDER load over empty libraries, found on the loader's path. What those would do is done here: numbers
take the place of symbolic sizes, and a creator is asked directly instead of through the registry. A case is a plugin's
name, its inputs' shapes (with null for a size that varies) and dtype, and its attributes; so is the answer, in JSON.
"""

import functools
import importlib
import json
import os
import sys
from typing import Any

import numpy as np


class Size:
    """Stands in for `IDimensionExpr`: a number, or None for one that is known at run time only."""

    def __init__(self, value: int | None) -> None:
        self.value = value

    def is_constant(self) -> bool:
        return self.value is not None

    def get_constant_value(self) -> int:
        assert self.value is not None
        return self.value


class Builder:
    """Stands in for `IExprBuilder`."""

    def constant(self, value: int) -> Size:
        return Size(value)

    def operation(self, operation: Any, first: Size, second: Size) -> Size:
        if first.value is None or second.value is None:
            return Size(None)
        compute = {
            "SUM": lambda a, b: a + b,
            "PROD": lambda a, b: a * b,
            "CEIL_DIV": lambda a, b: -(-a // b),
        }
        return Size(compute[operation.name](first.value, second.value))


class Sizes(list[Size | None]):
    """Stands in for `DimsExprs`."""

    def __init__(self, length: int) -> None:
        super().__init__([None] * length)


class Number:
    """Stands in for `ISymExpr`."""


class Launch:
    """Stands in for `IKernelLaunchParams` and for what takes the extra arguments."""

    def __init__(self) -> None:
        self.numbers: dict[int, Any] = {}

    def __setitem__(self, index: int, number: Any) -> None:
        self.numbers[index] = number


def load(folder: str) -> Any:
    """The bindings by the name that their own modules import them by."""
    sys.path.insert(0, folder)
    trt = importlib.import_module("tensorrt_bindings")
    sys.modules["tensorrt"] = trt
    trt.IDimensionExpr, trt.DimsExprs, trt.ISymExpr = Size, Sizes, Number
    plugin = importlib.import_module("tensorrt.plugin")
    plugin.register = functools.partial(plugin.register, lazy_register=True)
    return trt


def answer(trt: Any, case: dict[str, Any]) -> dict[str, Any]:
    library = importlib.import_module("tensorrt.plugin._lib")
    name = case["plugin"]
    definition = library.QDP_REGISTRY[f"consisid::{name}"]
    types = {key: (True, kind) for key, kind in definition.input_attrs.items()}
    creator = library._TemplatePluginCreator(name, "consisid", types)
    # As the parser reads an ONNX node: integers and single-precision floats, in the creator's order.
    kinds = {int: (np.int32, trt.PluginFieldType.INT32), float: (np.float32, trt.PluginFieldType.FLOAT32)}
    fields = []
    for key, (_, kind) in types.items():
        dtype, field_type = kinds[kind]
        fields.append(trt.PluginField(key, np.array([case["attributes"][key]], dtype), field_type))
    request = trt.QuickPluginCreationRequest.STRICT_AOT
    phase = trt.TensorRTPhase.BUILD
    plugin = creator.create_plugin(name, "consisid", trt.PluginFieldCollection(fields), phase, request)

    dtype = getattr(trt.DataType, case["dtype"])
    shapes = case["inputs"]
    (output_type,) = plugin.get_output_data_types([dtype] * len(shapes), [len(shape) for shape in shapes])
    sizes = [[Size(size) for size in shape] for shape in shapes]
    (output,) = plugin.get_output_shapes(sizes, [], Builder())
    tensors = [description(trt, dtype, shape) for shape in (*shapes, [size.value for size in output])]
    formats = plugin.get_supported_format_combinations(tensors, len(shapes))
    plugin.set_tactic(0)
    params, extra = Launch(), Launch()
    plugin.get_launch_params(sizes, tensors, len(shapes), params, extra, Builder())
    kernel, ptx = plugin.get_kernel([tensor.desc for tensor in tensors[:-1]], [tensors[-1].desc])
    return {
        "output": [size.value for size in output],
        "output_type": output_type.name,
        "formats": [f"{tensor.type.name} {tensor.format.name}" for tensor in formats],
        "grid": [getattr(params, f"grid_{axis}").expr.value for axis in "xyz"],
        "block": [getattr(params, f"block_{axis}").expr.value for axis in "xyz"],
        "shared": params.shared_mem.expr.value,
        "numbers": [extra.numbers[i].expr.value for i in range(extra.nbSymExprs)],
        "number_types": [extra.numbers[i].dtype.name for i in range(extra.nbSymExprs)],
        "kernel": kernel,
        "ptx": ptx.decode(),
    }


def description(trt: Any, dtype: Any, shape: list[int | None]) -> Any:
    tensor = trt.DynamicPluginTensorDesc()
    tensor.desc.dims = [-1 if size is None else size for size in shape]
    tensor.desc.type, tensor.desc.format, tensor.desc.scale = dtype, trt.TensorFormat.LINEAR, 1.0
    return tensor


def main() -> None:
    folder, architecture = sys.argv[1:]
    trt = load(folder)
    from consisid_export.tensorrt.plugins import register_plugins
    from consisid_runtime.errors import ExportRefused

    register_plugins(int(architecture))
    register_plugins(int(architecture))
    answers = []
    for case in json.load(sys.stdin):
        try:
            answers.append(answer(trt, case))
        except ExportRefused as refused:
            answers.append({"refused": str(refused)})
    print(json.dumps(answers))
    sys.stdout.flush()
    # The empty libraries have nothing to clean up with.
    os._exit(0)


if __name__ == "__main__":
    main()
