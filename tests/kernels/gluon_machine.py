"""Interprets the source code of a warp-specialised Gluon program on a CPU, with a random schedule of its warpgroups.

Triton has no interpreter for Gluon. This one exposes races and deadlocks. The target of a copy contains NaN until the
copy ends; copies end in random order, and one in four only when all warpgroups wait; an asynchronous product reads its
operands when it starts or at its wait; a warpgroup may be interrupted at every access to a barrier or shared memory.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import FunctionType, ModuleType, SimpleNamespace
from typing import Any

import torch
from torch import Tensor

NO_LAYOUT = SimpleNamespace(parent=None)


class Value(torch.Tensor):
    """A tensor in registers, with Gluon's `to` and `type`."""

    type = property(lambda self: SimpleNamespace(layout=NO_LAYOUT))  # type: ignore[assignment]

    def to(self, dtype: torch.dtype, bitcast: bool = False) -> Value:  # type: ignore[override]
        return value(self.view(dtype) if bitcast else super().to(dtype))


def value(x: Any) -> Value:
    return torch.as_tensor(x).as_subclass(Value)


@dataclass
class Shared:
    """A view of shared memory."""

    data: Tensor

    shape = property(lambda self: list(self.data.shape))
    dtype = property(lambda self: self.data.dtype)

    def index(self, i: int) -> Shared:
        return Shared(self.data[int(i)])

    def reshape(self, shape: list[int]) -> Shared:
        return Shared(self.data.view(shape))

    def permute(self, order: tuple[int, ...]) -> Shared:
        return Shared(self.data.permute(order))

    def slice(self, start: int, length: int) -> Shared:
        return Shared(self.data[start : start + length])

    def load(self, layout: object) -> Value:
        interrupt()
        return value(self.data.clone())

    def store(self, x: Tensor) -> None:
        interrupt()
        self.data.copy_(x)
        interrupt()


class Barrier:
    """An mbarrier: a phase ends after `count` arrivals and all expected bytes, which may be copied earlier."""

    def __init__(self) -> None:
        self.count, self.waited, self.bytes, self.phase = 0, 0, 0, 0

    def index(self, i: int) -> Barrier:
        raise AssertionError("a single barrier has no index")

    def arrive(self) -> None:
        assert self.waited > 0, "more arrivals than the phase expects"
        self.waited -= 1
        self.end_phase_if_complete()

    def end_phase_if_complete(self) -> None:
        if self.waited == 0 and self.bytes == 0:
            self.phase, self.waited = self.phase ^ 1, self.count


@dataclass
class Barriers:
    found: list[Barrier]

    def index(self, i: int) -> Barrier:
        return self.found[int(i)]


@dataclass
class Descriptor:
    """A TMA descriptor of a tensor [heads, tokens, D]."""

    base: Tensor
    block_shape: list[int]

    shape = property(lambda self: [value(size) for size in self.base.shape])
    dtype = property(lambda self: self.base.dtype)
    layout = None
    block_type = property(lambda self: SimpleNamespace(nbytes=2 * self.block_shape[1] * self.block_shape[2]))

    def window(self, head: int, start: int) -> Tensor:
        tokens = torch.arange(start, start + self.block_shape[1])
        inside = (tokens >= 0) & (tokens < self.base.shape[1])
        rows = self.base[head, tokens.clamp(0, self.base.shape[1] - 1)]
        return torch.where(inside[:, None], rows, torch.zeros_like(rows))[None]


@dataclass
class Pointer:
    memory: Tensor
    offsets: Tensor | None = None

    def __add__(self, offsets: Tensor) -> Pointer:
        return Pointer(self.memory, offsets)


class Warpgroup(threading.Thread):
    def __init__(self, machine: Machine, run: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self.machine, self.work, self.turn = machine, run, threading.Semaphore(0)
        self.ready: Callable[[], bool] = lambda: True
        self.done = False

    def run(self) -> None:
        self.turn.acquire()
        try:
            if self.machine.error is None:
                self.work()
        except Exception as error:
            self.machine.error = self.machine.error or error
        self.done = True
        self.machine.resume()


class Machine:
    """Executes one program of a kernel's grid."""

    def __init__(self, program: tuple[int, int], seed: int) -> None:
        self.program, self.random = program, random.Random(seed)
        self.copies: list[Callable[[], None]] = []
        self.late: list[Callable[[], None]] = []
        self.copied = 0
        self.warpgroups: list[Warpgroup] = []
        self.finished = threading.Semaphore(0)
        self.error: Exception | None = None

    def specialise(self, partitions: list[tuple[Callable[..., None], tuple[Any, ...]]], *_: object) -> None:
        self.warpgroups = [Warpgroup(self, lambda f=f, a=a: f(*a)) for f, a in partitions]  # type: ignore[misc]
        for warpgroup in self.warpgroups:
            warpgroup.start()
        self.resume()
        assert self.finished.acquire(timeout=60)
        if self.error is not None:
            raise self.error
        assert not self.copies + self.late, "a copy had not ended with the program"

    def resume(self) -> None:
        while True:
            running = [w for w in self.warpgroups if not w.done]
            if not running:
                self.finished.release()
                return
            able: list[Any] = [w for w in running if self.error is not None or w.ready()]
            if not able + self.copies + self.late:
                self.error = RuntimeError("deadlock: no warpgroup can continue")
                continue
            chosen = self.random.choice(able + self.copies or self.late)
            if isinstance(chosen, Warpgroup):
                chosen.turn.release()
                return
            (self.copies if chosen in self.copies else self.late).remove(chosen)
            chosen()

    def pause(self, until: Callable[[], bool] = lambda: True) -> None:
        own = threading.current_thread()
        if isinstance(own, Warpgroup):
            own.ready = until
            self.resume()
            own.turn.acquire()
            if self.error is not None:
                raise self.error

    def wait(self, barrier: Barrier, phase: int) -> None:
        self.pause(lambda: barrier.phase != int(phase))

    def arrive(self, barrier: Barrier, count: int) -> None:
        assert count == 1
        self.pause()
        barrier.arrive()

    def expect(self, barrier: Barrier, size: int) -> None:
        self.pause()
        barrier.bytes += size
        barrier.arrive()

    def copy(self, source: Descriptor, at: list[int], barrier: Barrier, target: Shared) -> None:
        head, start = int(at[0]), int(at[1])
        target.data.fill_(torch.nan)

        def end() -> None:
            target.data.copy_(source.window(head, start))
            barrier.bytes -= source.block_type.nbytes
            barrier.end_phase_if_complete()

        self.copied += 1
        (self.late if self.random.random() < 0.25 else self.copies).append(end)
        self.pause()


def interrupt() -> None:
    """Lets other warpgroups and copies go on."""
    own = threading.current_thread()
    if isinstance(own, Warpgroup):
        own.machine.pause()


def multiply(a: Value, b: Shared, acc: Any, use_acc: bool = True, is_async: bool = False) -> Any:
    """The product, or a function that computes it at its wait."""
    own = threading.current_thread()

    def finish() -> Value:
        interrupt()
        product = a.float() @ b.data.float()
        return value(acc + product if use_acc else product)

    assert isinstance(own, Warpgroup)
    return finish if is_async and own.machine.random.random() < 0.5 else finish()


def wait_for(outstanding: int, deps: Iterable[Any]) -> tuple[Any, ...]:
    assert outstanding == 0
    return tuple(x() if callable(x) else x for x in deps)


def allocate(dtype: torch.dtype, shape: list[int], layout: object) -> Any:
    if dtype == torch.int64:
        return Barriers([Barrier() for _ in range(shape[0])]) if len(shape) > 1 else Barrier()
    return Shared(torch.full(shape, torch.nan if dtype.is_floating_point else -1, dtype=dtype))


def initialise(barrier: Barrier, count: int) -> None:
    barrier.count = barrier.waited = count


def store(at: Pointer, x: Tensor, mask: Tensor) -> None:
    assert at.offsets is not None
    inside = mask.expand(x.shape)
    at.memory.view(-1)[at.offsets[inside]] = x[inside]


def maximum(x: Value, y: Any, propagate_nan: Any = None) -> Any:
    """As on a GPU: NaN only if both are NaN, unless `propagate_nan`."""
    return (torch.maximum if propagate_nan is not None else torch.fmax)(x, value(y))


def reduced_maximum(x: Value, axis: int) -> Any:
    return torch.where(x.isnan(), -torch.inf, x).amax(axis) if x.is_floating_point() else x.amax(axis)


def map_groups(f: Callable[..., tuple[Value, ...]], x: Value, pack: int) -> tuple[Value]:
    out = torch.empty_like(x)
    for i, part in enumerate(f(*(x[:, i::pack] for i in range(pack)))):
        out[:, i::pack] = part
    return (out,)


def executable(module: ModuleType, machine: Machine) -> dict[str, Any]:
    """The module's names, with its kernels as Python functions that use this machine instead of Gluon."""

    def layout(*_: object) -> None: ...

    names: dict[str, Any] = dict(vars(module))
    names["gl"] = SimpleNamespace(
        float32=torch.float32, int32=torch.int32, int64=torch.int64, static_range=range, num_warps=lambda: 4,
        BlockedLayout=layout, DotOperandLayout=layout, NVMMADistributedLayout=layout, SliceLayout=layout,
        SwizzledSharedLayout=layout, allocate_shared_memory=allocate, warp_specialize=machine.specialise,
        program_id=lambda axis: value(machine.program[axis]), cdiv=lambda a, b: (a + b - 1) // b,
        zeros=lambda shape, dtype, _: value(torch.zeros(shape, dtype=dtype)), zeros_like=torch.zeros_like,
        full=lambda shape, x, dtype, _: value(torch.full(shape, int(x), dtype=dtype)),
        arange=lambda start, end, _: value(torch.arange(start, end)), convert_layout=lambda x, _: x,
        max=reduced_maximum, sum=torch.sum, abs=torch.abs, exp2=torch.exp2, where=torch.where, store=store,
        maximum=maximum, minimum=lambda x, y: torch.fmin(x, value(y)),
        map_elementwise=map_groups,
    )  # fmt: skip
    names["mbarrier"] = SimpleNamespace(
        init=initialise, wait=machine.wait, arrive=machine.arrive, expect=machine.expect, MBarrierLayout=layout
    )
    names["_copy"] = machine.copy
    names["warpgroup_mma"], names["warpgroup_mma_wait"] = multiply, wait_for
    for name, found in vars(module).items():
        if hasattr(found, "is_gluon"):
            names[name] = FunctionType(found.fn.__code__, names, name, found.fn.__defaults__)
        elif type(found).__name__ == "constexpr":
            names[name] = found.value
    return names
