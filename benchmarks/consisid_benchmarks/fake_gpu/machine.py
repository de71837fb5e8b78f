"""Makes `torch.cuda` and Triton look like one H200 while the project's own code runs."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from types import SimpleNamespace
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor
from torch.overrides import TorchFunctionMode

from consisid_benchmarks.fake_gpu import device, streams
from consisid_benchmarks.fake_gpu.driver import MULTIPROCESSORS, Launches, stub_driver
from consisid_benchmarks.fake_gpu.meter import FAKE, Meter, is_pinned, pin

MEMORY = 141 * 10**9
"""Bytes of an H200 (NVIDIA H200 datasheet)."""
_ADDRESS = 4096
"""Of every fake tensor: aligned as PyTorch's allocator aligns."""


@contextmanager
def machine() -> Iterator[tuple[Meter, Launches]]:
    """A GPU that counts, in a process of its own. Raises `MissingExtra` where it cannot be made (`device.missing`)."""
    device.install()
    gc.freeze()  # the meter collects garbage at every stage; what was imported is none
    meter = Meter()
    properties = SimpleNamespace(
        name="fake H200", multi_processor_count=MULTIPROCESSORS, total_memory=MEMORY, major=9, minor=0
    )
    functions: dict[str, Callable[..., Any]] = {
        "is_available": lambda: True,
        "device_count": lambda: 1,
        "current_device": lambda: 0,
        "get_device_capability": lambda *_: (9, 0),
        "get_device_properties": lambda *_: properties,
        "mem_get_info": lambda *_: (MEMORY - meter.live, MEMORY),
        "device": lambda *_: nullcontext(),
        "_lazy_init": lambda: None,
        "empty_cache": lambda: None,
        "synchronize": lambda *_: meter.waits("torch.cuda.synchronize"),
        **streams.FUNCTIONS,
        "Event": lambda **_: _Event(meter),
    }
    with ExitStack() as stack:
        for name, function in functions.items():
            stack.enter_context(mock.patch.object(torch.cuda, name, function))
        stack.enter_context(mock.patch.object(nn.Module, "to", _module_to))
        stack.enter_context(mock.patch.object(FakeTensor, "data_ptr", lambda _: _ADDRESS, create=True))
        stack.enter_context(_Functions())
        launches = stub_driver(meter)
        stack.enter_context(meter)
        yield meter, launches


def host_tensor(shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
    """A tensor on the CPU without memory: a weight before it is sent."""
    with FAKE:
        return torch.empty(shape, dtype=dtype)


def device_tensor(meter: Meter, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    """A tensor on the device, counted as live."""
    with FAKE:
        made = torch.empty(shape, dtype=dtype, device="cuda:0")
    meter.own(made)
    return made


class _Event(streams.Event):
    """Waiting for it lets the device idle where nothing was launched behind it."""

    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def record(self, stream: streams.Stream | None = None) -> None:
        super().record(stream)
        self._launched = self._meter.launched

    def synchronize(self) -> None:
        if self._meter.launched == self._launched:
            self._meter.waits("an event, with nothing behind it")


class _Functions(TorchFunctionMode):
    """What does not reach the dispatcher on fake tensors as it does on real ones."""

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is torch.Tensor.numpy and isinstance(args[0], FakeTensor):
            return args[0].detach().to("cpu").numpy()
        if func is torch.Tensor.pin_memory:
            return pin(args[0])
        if func is torch.Tensor.is_pinned:
            return is_pinned(args[0])
        if kwargs.pop("pin_memory", False):
            return pin(func(*args, **kwargs))
        return func(*args, **kwargs)


def _module_to(self: nn.Module, target: Any) -> nn.Module:
    """`Module.to` for a device: fake tensors cannot be swapped in place, so that parameters are replaced."""
    moved: dict[int, tuple[Any, Tensor]] = {}
    for module in self.modules():
        for kind in (module._parameters, module._buffers):
            for name, tensor in list(kind.items()):
                if tensor is None:
                    continue
                if id(tensor) not in moved:
                    new = tensor.data.to(target)
                    shared = nn.Parameter(new, requires_grad=False) if isinstance(tensor, nn.Parameter) else new
                    moved[id(tensor)] = shared, tensor  # keeps the old one, so that no other gets its id
                kind[name] = moved[id(tensor)][0]
    return self
