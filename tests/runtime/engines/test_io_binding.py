"""Tensors bound by their addresses give what NumPy's arrays give, without a copy: on the CPU, by CUDA's code."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from consisid_runtime.bundle import Bundle
from consisid_runtime.engines.io_binding import BoundSession, output_shapes
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.serve.readiness.warm_up import _sizes
from consisid_runtime.signatures import Port, Signature

CPU = torch.device("cpu")


class Watched:
    """A session that keeps the addresses that are bound."""

    def __init__(self, session: Any) -> None:
        self._session, self.addresses = session, {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._session, name)

    def io_binding(self) -> Any:
        binding = self._session.io_binding()
        for side in ("bind_input", "bind_output"):
            setattr(binding, side, self._keeping(getattr(binding, side)))
        return binding

    def _keeping(self, bind: Callable[..., None]) -> Callable[..., None]:
        def kept(name: str, *place: Any) -> None:
            self.addresses[name] = place[-1] if len(place) > 2 else None
            bind(name, *place)

        return kept


def inputs_of(bundle: Bundle, module: str) -> dict[str, Tensor]:
    ports = bundle.signature(module).bind({**_sizes(bundle), "image_height": 64, "image_width": 96}).inputs
    generator = torch.Generator().manual_seed(1)
    integers = {"INT64": torch.int64}
    return {
        port.name: torch.randint(0, 9, port.shape, generator=generator)  # type: ignore[arg-type]
        if port.dtype in integers
        else torch.randn(port.shape, generator=generator)  # type: ignore[arg-type]
        for port in ports
    }


@pytest.mark.parametrize("module", ["dit_step", "dit_modulate", "vae_decoder_first", "vae_decoder_next", "aligner"])
def test_bound_tensors_give_the_same_bits(module: str, untrained_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = Bundle.open(untrained_bundle, device="cpu")
    engine = bundle.module(module)
    assert isinstance(engine, OnnxEngine) and engine.device == CPU
    inputs = inputs_of(bundle, module)
    expected = engine(inputs)
    session = Watched(engine._session)
    bound = BoundSession(session, bundle.signature(module), CPU, None)  # type: ignore[arg-type]

    def forbidden(*_: object, **__: object) -> None:
        raise AssertionError("a tensor went through NumPy")

    monkeypatch.setattr(Tensor, "numpy", forbidden)
    monkeypatch.setattr(torch, "from_numpy", forbidden)
    found = bound(inputs)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], tensor) for name, tensor in expected.items())
    assert {name: session.addresses[name] for name in inputs} == {n: t.data_ptr() for n, t in inputs.items()}
    unknown = [name for name in found if session.addresses[name] is None]
    assert unknown == (["boxes", "scores", "landmarks"] if module == "aligner" else [])
    assert all(session.addresses[n] == found[n].data_ptr() for n in found if n not in unknown)


def test_bfloat16_passes(tmp_path: Path) -> None:
    kind = onnx.TensorProto.BFLOAT16
    values = [onnx.helper.make_tensor_value_info(name, kind, [1, "n"]) for name in ("x", "y", "z")]
    nodes = [
        onnx.helper.make_node("Concat", ["x", "x"], ["y"], axis=1),
        onnx.helper.make_node("Identity", ["x"], ["z"]),
    ]
    graph = onnx.helper.make_graph(nodes, "g", values[:1], values[1:])
    path = tmp_path / "half.onnx"
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 23)], ir_version=10), path)
    ports = Port("x", "FP32", (1, "n")), Port("y", "FP32", (1, "2*n")), Port("z", "FP32", (1, "unknown"))
    signature = Signature("half", ports[:1], ports[1:])
    bound = BoundSession(onnxruntime.InferenceSession(path), signature, CPU, None)
    x = torch.randn(1, 5)
    found = bound({"x": x})
    half = x.bfloat16()
    assert found["z"].dtype == found["y"].dtype == torch.bfloat16
    assert torch.equal(found["z"], half) and torch.equal(found["y"], torch.cat((half, half), 1))


def test_shapes_that_follow_from_the_inputs() -> None:
    signature = Signature(
        "m",
        (Port("x", "FP32", (1, "frames", "2*rows")), Port("y", "FP32", ("columns",))),
        (Port("a", "FP32", ("4*columns", 3, "2*rows")), Port("b", "FP32", ("rows",)), Port("c", "FP32", ("frames",))),
    )
    assert output_shapes(signature, {"x": (1, 5, 12), "y": (7,)}) == {"a": (28, 3, 12), "b": None, "c": (5,)}
