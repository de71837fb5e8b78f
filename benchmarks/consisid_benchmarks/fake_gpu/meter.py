"""Counts what PyTorch's operators do on fake CUDA tensors, and answers where the host asks for a value."""

from __future__ import annotations

import gc
import linecache
import sys
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._prims_common import suggest_memory_format
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from consisid_benchmarks.fake_gpu.count import COPIES, Count

FAKE = FakeTensorMode(allow_non_fake_inputs=True)
"""Within it tensors have no memory."""
ALIGNMENT = 512
"""Bytes that PyTorch's allocator rounds every tensor up to (c10/cuda/CUDACachingAllocator.cpp, kMinBlockSize)."""
_PROJECT = ("consisid_runtime", "consisid_kernels")
_aten = torch.ops.aten
_ASKS = (_aten.nonzero.default, _aten.equal.default)
"""Operators whose result's size or value the host needs."""
_SAME_FLOPS = {_aten._addmm_activation: _aten.addmm}
"""Operators that PyTorch's counter of FLOPs does not know → one that multiplies the same."""
_FREE = frozenset(
    (
        *("_unsafe_view", "_reshape_alias", "alias", "detach", "lift_fresh", "set_"),
        *("empty", "empty_like", "empty_strided", "new_empty"),
    )
)
"""Operators that launch nothing, beside views."""


class WrongDevice(Exception):
    """An operator or a kernel got a tensor on the CPU among tensors on the GPU."""


def on_gpu(value: object) -> bool:
    return isinstance(value, FakeTensor) and value.device.type == "cuda"


def place() -> str:
    """ "file function: source line" of the innermost frame in the project: unlike a line's number it survives edits
    elsewhere in its file."""
    frame = sys._getframe(1)
    while frame is not None:
        path = Path(frame.f_code.co_filename)
        for package in _PROJECT:
            if package in path.parts:
                name = "/".join(path.parts[path.parts.index(package) :])
                text = linecache.getline(str(path), frame.f_lineno).strip()
                return f"{name} {frame.f_code.co_name}: {text}"
        frame = frame.f_back  # type: ignore[assignment]
    return "outside of the project"


class Meter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts, stage by stage.

    Attributes:
        live: bytes of the tensors on the device now.
        stages: name → its count, in the order in which they began.
        count: that of the present stage.
        peaks: what was named by `watch` → most of `live` from then until the next name.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.live = 0
        self.stages: dict[str, Count] = {}
        self._owned: dict[int, int] = {}
        self.peaks: dict[str, int] = {}
        self._watched = ""
        self.begin("load")

    def begin(self, stage: str) -> None:
        """What follows belongs to `stage`, which may go on where it began before."""
        gc.collect()
        known = self.stages.get(stage)
        self.count = known or Count(start_bytes=self.live, peak_bytes=self.live)
        self.stages[stage] = self.count

    @property
    def launched(self) -> int:
        """Kernels and copies that the device was given until now."""
        return sum(count.total.launches for count in self.stages.values())

    def watch(self, name: str) -> None:
        """What follows counts for `peaks` under this name."""
        self._watched = name
        self.peaks[name] = max(self.peaks.get(name, 0), self.live)

    def own(self, tensor: object) -> None:
        """Counts the memory of a tensor on the device until it is freed."""
        if not isinstance(tensor, FakeTensor) or tensor.device.type != "cuda":
            return
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._owned:
            return
        size = -(-storage.nbytes() // ALIGNMENT) * ALIGNMENT
        self._owned[key] = size
        self.live += size
        weakref.finalize(storage, self._free, key)
        self.peaks[self._watched] = max(self.peaks.get(self._watched, 0), self.live)
        if self.live > self.count.peak_bytes:
            self.count.peak_bytes, self.count.peak_at = self.live, place()

    def _free(self, key: int) -> None:
        self.live -= self._owned.pop(key, 0)

    def waits(self, what: str) -> None:
        """The host waits for the device, or the device for the host."""
        key = f"{place()} [{what}]"
        self.count.waits[key] = self.count.waits.get(key, 0) + 1

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        leaves = tree_leaves((args, kwargs))
        device = kwargs.get("device")
        target = None if device is None else torch.device(device).type
        if target != "cuda" and not any(map(on_gpu, leaves)):
            with FAKE if any(isinstance(leaf, FakeTensor) for leaf in leaves) else nullcontext():
                return func(*args, **kwargs)
        if func is _aten._local_scalar_dense.default:
            self.waits("a value")
            return True if args[0].dtype == torch.bool else torch.ones((), dtype=args[0].dtype).item()
        if func in _ASKS:
            self.waits("a value")
        if func is _aten._to_copy.default and (moved := self._moved(args[0], target, kwargs)) is not None:
            return moved
        if func is _aten.copy_.default and on_gpu(args[0]) != on_gpu(args[1]):
            return self._copied(args[0], args[1], bool(args[2:] and args[2]) or bool(kwargs.get("non_blocking")))
        for leaf in leaves:
            if isinstance(leaf, Tensor) and leaf.dim() and not on_gpu(leaf):
                raise WrongDevice(f"{func} gets {list(leaf.shape)} on the CPU beside tensors on CUDA; {place()}")
        with FAKE:
            out = func(*args, **kwargs)
            if func is _aten.convolution.default:
                out = _in_cudnns_layout(out, *args[:2])
        self._ran(func, args, kwargs, out)
        return out

    def _moved(self, source: Tensor, target: str | None, kwargs: dict[str, Any]) -> Tensor | None:
        """The copy between host and device that `to` makes; None for a copy on the device."""
        dtype = kwargs.get("dtype") or source.dtype
        if target == "cuda" and not on_gpu(source):
            with FAKE:
                out = torch.empty_strided(source.shape, source.stride(), dtype=dtype, device="cuda:0")
            self._sent(source, bool(kwargs.get("non_blocking")))
            self.own(out)
            return out
        if target == "cpu" and on_gpu(source):
            self._received(source, False)
            return torch.zeros(source.shape, dtype=dtype)
        return None

    def _copied(self, to: Tensor, source: Tensor, non_blocking: bool) -> Tensor:
        if on_gpu(to):
            self._sent(source, non_blocking)
        else:
            self._received(source, non_blocking and is_pinned(to))
            to.fill_(to.dtype == torch.bool)  # what the host reads there decides, as a value does
        return to

    def _sent(self, source: Tensor, non_blocking: bool) -> None:
        self.count.add(COPIES, source.nbytes, 0)
        if not (non_blocking and is_pinned(source)):
            self.waits("to the device, from pageable memory" if not is_pinned(source) else "to the device")

    def _received(self, source: Tensor, without_waiting: bool) -> None:
        self.count.add(COPIES, source.nbytes, 0)
        if not without_waiting:
            self.waits("to the host")

    def _ran(self, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any], out: Any) -> None:
        """Counts an operator on the device."""
        name = str(func).removeprefix("aten.")
        made = [leaf for leaf in tree_leaves(out) if on_gpu(leaf)]
        for tensor in made:
            self.own(tensor)
        if func.is_view or name.partition(".")[0] in _FREE or name.startswith("prim."):
            return
        read = [leaf for leaf in tree_leaves((args, kwargs)) if on_gpu(leaf)]
        operator = func._overloadpacket
        known: Callable[..., Any] | None = flop_registry.get(_SAME_FLOPS.get(operator, operator))
        flops = int(known(*args, **kwargs, out_val=out)) if known else 0
        self.count.add(name, sum(t.numel() * t.element_size() for t in read + made), flops)


def _in_cudnns_layout(out: Tensor, x: Tensor, weight: Tensor) -> Tensor:
    """The result in channels-last where x or the weight is so.

    Thus cuDNN decides (ATen/native/ConvUtils.h, `cudnn_conv_suggest_memory_format`); without cuDNN, as here, PyTorch
    predicts the layout of another library.
    """
    layout = {4: torch.channels_last, 5: torch.channels_last_3d}.get(x.dim())
    if layout is None or x.dtype == torch.float64:
        return out
    is_last = any(suggest_memory_format(tensor) == layout for tensor in (x, weight))
    return out.contiguous(memory_format=layout) if is_last else out


_PINNED: weakref.WeakKeyDictionary[Any, bool] = weakref.WeakKeyDictionary()


def pin(tensor: Tensor) -> Tensor:
    """Stands in for `Tensor.pin_memory`, which asks the driver for memory."""
    _PINNED[tensor.untyped_storage()] = True
    return tensor


def is_pinned(tensor: Tensor) -> bool:
    return tensor.untyped_storage() in _PINNED
