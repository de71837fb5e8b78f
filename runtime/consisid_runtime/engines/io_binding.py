"""Runs an ONNX Runtime session on PyTorch's tensors where they lie, by the addresses of their memory.

NumPy is not in between, so that tensors stay on a GPU, and bfloat16 has a dtype. Not yet executed on a GPU.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from consisid_runtime.signatures import Signature

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

_TYPES = {
    "tensor(float)": (torch.float32, 1),
    "tensor(float16)": (torch.float16, 10),
    "tensor(bfloat16)": (torch.bfloat16, 16),
    "tensor(int32)": (torch.int32, 6),
    "tensor(int64)": (torch.int64, 7),
    "tensor(uint8)": (torch.uint8, 2),
    "tensor(bool)": (torch.bool, 9),
}
"""ONNX Runtime's name of a type → PyTorch's dtype, and the number of ONNX's `TensorProto.DataType`."""


class BoundSession:
    """A session whose inputs and outputs lie in the memory of tensors. Calls from several threads are serialised.

    Args:
        signature: of the module, from which the outputs' shapes follow. ONNX Runtime allocates those that do not.
        device: where the session runs.
        stream: that the session was told to run on; None on a CPU.
    """

    def __init__(
        self, session: InferenceSession, signature: Signature, device: torch.device, stream: torch.cuda.Stream | None
    ) -> None:
        self._session, self._signature, self._device, self._stream = session, signature, device, stream
        self._place = (device.type, device.index or 0)
        self._inputs = {port.name: _TYPES[port.type] for port in session.get_inputs()}
        self._outputs = {port.name: _TYPES[port.type] for port in session.get_outputs()}
        self._lock = threading.Lock()

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Inputs by name, from anywhere; those on the session's device in its dtype are read where they lie."""
        bound = {name: inputs[name].to(self._device, dtype).contiguous() for name, (dtype, _) in self._inputs.items()}
        shapes = output_shapes(self._signature, {name: tuple(tensor.shape) for name, tensor in bound.items()})
        outputs = {
            name: torch.empty(shape, dtype=self._outputs[name][0], device=self._device)
            for name, shape in shapes.items()
            if shape is not None
        }
        binding = self._session.io_binding()
        for name, tensor in bound.items():
            binding.bind_input(name, *self._place, self._inputs[name][1], tuple(tensor.shape), tensor.data_ptr())
        for name in shapes:
            if name in outputs:
                made, kind = outputs[name], self._outputs[name][1]
                binding.bind_output(name, *self._place, kind, tuple(made.shape), made.data_ptr())
            else:
                binding.bind_output(name, *self._place)
        with self._lock, self._in_order():
            self._session.run_with_iobinding(binding)
        values = dict(zip(shapes, binding.get_outputs(), strict=True))
        return {name: outputs[name] if name in outputs else from_dlpack(values[name]) for name in shapes}

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """The session begins after what the caller has queued; what the caller queues later begins after the session.

        ONNX Runtime takes no default stream, on which PyTorch computes.
        """
        if self._stream is None:
            yield
            return
        caller = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(caller)
        try:
            yield
        finally:
            caller.wait_stream(self._stream)


def output_shapes(signature: Signature, inputs: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...] | None]:
    """Every output's shape as it follows from the inputs' shapes; None where it does not."""
    known = {
        size: length
        for port in signature.inputs
        for size, length in zip(port.shape, inputs[port.name], strict=True)
        if isinstance(size, str)
    }
    found: dict[str, tuple[int, ...] | None] = {}
    for port in signature.outputs:
        sizes = [known.get(size, size) if isinstance(size, str) else size for size in port.bind(known).shape]
        found[port.name] = tuple(int(size) for size in sizes) if not any(isinstance(s, str) for s in sizes) else None
    return found
