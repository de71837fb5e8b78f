"""Calls ONNX Runtime's engine on a fake GPU, with a session that keeps what is bound to it, and prints what it saw.

`python binding.py`: JSON.
"""

import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

import onnxruntime
import torch
from torch._subclasses.fake_tensor import FakeTensor

from consisid_benchmarks.fake_gpu.machine import device_tensor, machine
from consisid_benchmarks.fake_gpu.streams import current_stream
from consisid_runtime.engines import io_binding, place_of
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.signatures import Port, Signature

SIGNATURE = Signature(
    "module",
    (Port("x", "FP32", (1, "rows")), Port("half", "FP32", (1, "rows"))),
    (Port("y", "FP32", (1, "2*rows")), Port("chosen", "FP32", ("many",))),
)
addresses: dict[int, int] = {}
numbers = itertools.count(1)


def address(tensor: Any) -> int:
    return addresses.setdefault(tensor.untyped_storage()._cdata, next(numbers))


class Session:
    """Of ONNX Runtime."""

    def __init__(self, path: Path, options: Any, *, providers: list[Any], **_: object) -> None:
        self.providers, self.bound, self.waits = providers, {}, []

    def get_providers(self) -> list[str]:
        return ["CUDAExecutionProvider", "CPUExecutionProvider"]

    def get_provider_graph_assignment_info(self) -> list[Any]:
        return []

    def get_inputs(self) -> list[Any]:
        return [
            SimpleNamespace(name="x", type="tensor(float)"),
            SimpleNamespace(name="half", type="tensor(bfloat16)"),
        ]

    def get_outputs(self) -> list[Any]:
        return [
            SimpleNamespace(name="y", type="tensor(bfloat16)"),
            SimpleNamespace(name="chosen", type="tensor(float)"),
        ]

    def io_binding(self) -> Any:
        keep: Any = lambda name, *place: self.bound.update({name: place})  # noqa: E731
        values = ["y", "chosen"]
        return SimpleNamespace(bind_input=keep, bind_output=keep, get_outputs=lambda: values)

    def run_with_iobinding(self, binding: Any) -> None:
        self.waits.append(len(current_stream().waits))


if __name__ == "__main__":
    available = lambda: ["CUDAExecutionProvider", "CPUExecutionProvider"]  # noqa: E731
    with (
        machine() as (meter, _),
        mock.patch.object(FakeTensor, "data_ptr", address),
        mock.patch.object(onnxruntime, "InferenceSession", Session),
        mock.patch.object(onnxruntime, "get_available_providers", available),
        mock.patch.object(io_binding, "from_dlpack", lambda value: value),
    ):
        engine = OnnxEngine(Path("x.onnx"), SIGNATURE, device="cuda")
        session: Any = engine._session
        x, half = device_tensor(meter, 1, 3), device_tensor(meter, 1, 3, dtype=torch.bfloat16)
        meter.begin("call")
        outputs = engine({"x": x, "half": half})
        own = engine._bound._stream  # type: ignore[union-attr]
        count = meter.stages["call"]
        print(
            json.dumps(
                {
                    "device": str(place_of(engine)),
                    "options": session.providers[0][1],
                    "stream": str(own.cuda_stream),
                    "order": [
                        [stream.cuda_stream for stream in own.waits],
                        session.waits,
                        [stream.cuda_stream for stream in current_stream().waits],
                    ],
                    "bound": session.bound,
                    "own": {"x": address(x), "half": address(half), "y": address(outputs["y"])},
                    "chosen": outputs["chosen"],
                    "kernels": sorted(count.kernels),
                    "waits": count.waits,
                    "y": [str(outputs["y"].dtype), str(outputs["y"].device), list(outputs["y"].shape)],
                }
            )
        )
