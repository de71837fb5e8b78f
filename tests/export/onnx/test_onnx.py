"""The exporter refuses a graph whose axes were fixed behind its back, and one that computes something else."""

from pathlib import Path

import onnx
import pytest
import torch
from torch import Tensor, nn

from consisid_export.onnx.trace import _name_axes, export_onnx
from consisid_export.verify.module import check, relative_error
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.errors import ExportRefused
from consisid_runtime.signatures import DYNAMIC, Port, Signature

SIGNATURE = Signature(
    "doubler", (Port("x", "FP32", (1, "frames", "2*rows")),), (Port("y", "FP32", (1, "frames", "2*rows")),)
)


class Doubler(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x


class Frozen(nn.Module):
    """Specialises on its input's size, as code with a Python branch on a shape does."""

    def forward(self, x: Tensor) -> Tensor:
        return 2 * x if x.shape[1] == 3 else x


class Swapped(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return 2 * x + 1e-3


def test_a_dynamic_axis_carries_its_symbol(tmp_path: Path) -> None:
    export_onnx(Doubler(), SIGNATURE, tmp_path / "x.onnx")
    dims = onnx.load(tmp_path / "x.onnx").graph.input[0].type.tensor_type.shape.dim
    assert [dim.dim_param or dim.dim_value for dim in dims] == [1, "frames", "2*rows"]
    assert check(Doubler(), OnnxEngine(tmp_path / "x.onnx", SIGNATURE), SIGNATURE).error == 0


def test_a_frozen_axis_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Exception, match=r"frames|specializ|dynamic"):
        export_onnx(Frozen(), SIGNATURE, tmp_path / "x.onnx")


def test_an_axis_that_the_tracer_fixed_is_refused() -> None:
    """Whatever the tracer does: the names are put on the written graph."""
    found = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1, 3, "anything"])]
    with pytest.raises(ExportRefused, match=r"doubler: x axis 1 must be dynamic \(frames\) .* fixed it to 3"):
        _name_axes(found, SIGNATURE.inputs, "doubler")
    found = [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, "anything", "anything"])]
    with pytest.raises(ExportRefused, match=r"doubler: x axis 0 is 2, its signature says 1"):
        _name_axes(found, SIGNATURE.inputs, "doubler")


@pytest.mark.parametrize("names", [[], ["x", "surplus"], ["other"]], ids=["none", "two", "another"])
def test_a_graph_with_other_tensors_than_its_signature_is_refused(names: list[str]) -> None:
    found = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, "a", "b"]) for name in names]
    with pytest.raises(ExportRefused, match=r"doubler: the graph has tensors \[.*\], its signature says \['x'\]"):
        _name_axes(found, SIGNATURE.inputs, "doubler")


@pytest.mark.parametrize("level", [0.0, 1.5])
def test_a_constant_output_is_refused(level: float) -> None:
    """Nothing could be concluded from a comparison with it."""

    def constant(x: Tensor) -> Tensor:
        return torch.full_like(x, level)

    with pytest.raises(ExportRefused, match="PyTorch answers every sample with a constant y"):
        check(constant, lambda inputs: {"y": constant(inputs["x"])}, SIGNATURE)  # type: ignore[arg-type]


def test_an_engine_with_another_number_of_outputs_is_refused(tmp_path: Path) -> None:
    export_onnx(Doubler(), SIGNATURE, tmp_path / "x.onnx")
    two = Signature("doubler", SIGNATURE.inputs, (*SIGNATURE.outputs, Port("z", "FP32", (1, "frames", "2*rows"))))
    engine = OnnxEngine(tmp_path / "x.onnx", SIGNATURE)
    with pytest.raises(ValueError, match="shorter"):
        check(Doubler(), engine, two)


def test_another_function_is_refused(tmp_path: Path) -> None:
    export_onnx(Swapped(), SIGNATURE, tmp_path / "x.onnx")
    with pytest.raises(ExportRefused, match=r"doubler: y \[1, 3, 8\] differs from PyTorch by .*; the limit is 1e-05"):
        check(Doubler(), OnnxEngine(tmp_path / "x.onnx", SIGNATURE), SIGNATURE)


def test_an_error_is_relative_and_never_hides_a_nan() -> None:
    one = torch.ones(4)
    assert relative_error(one * (1 + 1e-3), one) == pytest.approx(1e-3, rel=1e-3)
    assert relative_error(torch.tensor([float("nan")]), torch.ones(1)) == float("inf")
    assert relative_error(torch.ones(3), one) == float("inf")
    assert relative_error(torch.tensor([1, 2]), torch.tensor([1, 3])) == 0.5


def test_every_graph_of_the_bundle_has_its_declared_axes(untrained_bundle: Path) -> None:
    bundle = Bundle.open(untrained_bundle)
    seen = set()
    for module in bundle.manifest["modules"]:
        graph = onnx.load(untrained_bundle / f"{module}.onnx", load_external_data=False).graph
        signature = bundle.signature(module)
        for values, ports in ((graph.input, signature.inputs), (graph.output, signature.outputs)):
            for value, port in zip(values, ports, strict=True):
                dims = value.type.tensor_type.shape.dim
                assert tuple(dim.dim_param or dim.dim_value for dim in dims) == port.shape, (module, port.name)
                seen |= {symbol for size in port.dynamic_axes.values() for symbol in size.split("*")}
    assert seen & DYNAMIC.keys() == DYNAMIC.keys()


def test_every_module_was_compared_with_its_original(untrained_bundle: Path) -> None:
    checks = {name: module["check"] for name, module in Bundle.open(untrained_bundle).manifest["modules"].items()}
    assert {record["kind"] for record in checks.values()} == {"numeric"}
    assert max(record["error"] for record in checks.values()) <= 1e-5
