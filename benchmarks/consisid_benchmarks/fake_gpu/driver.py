"""A driver for Triton that launches nothing: its JIT compiles for sm_90 what a launch's own arguments ask for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch
from triton.backends.compiler import GPUTarget
from triton.runtime import driver

from consisid_benchmarks.fake_gpu.count import Compiled
from consisid_benchmarks.fake_gpu.meter import Meter, WrongDevice, on_gpu, place
from consisid_benchmarks.fake_gpu.work import flops, tensors
from consisid_kernels.compile import aot

ARCHITECTURE = 90
SHARED = 232_448
"""Bytes of shared memory that a block may have on compute capability 9.0: 227 KiB."""
MULTIPROCESSORS = 132
LARGEST_GRID = (2**31 - 1, 65_535, 65_535)
"""Blocks along x, y and z (CUDA C++ Programming Guide, technical specifications per compute capability)."""


class TooLarge(Exception):
    """A grid that no GPU launches."""


class Launches:
    """What Triton's JIT launched on one machine.

    Attributes:
        compiled: "module.kernel" and the number of its form → what it needs, and its grids.
    """

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._forms: dict[object, Compiled] = {}
        self.compiled: dict[str, Compiled] = {}

    def launched(self, kernel: Any, form: object, need: Compiled, grid: tuple[int, int, int], values: Any) -> None:
        """Counts a launch of a kernel with the values of its arguments; `form` is one for each compiled form."""
        module = kernel.fn.__module__.rpartition(".")[2]
        label, given = f"triton.{module}", dict(zip(kernel.arg_names, values, strict=True))
        used = tensors(given)
        for name, tensor in used.items():
            if not on_gpu(tensor):
                raise WrongDevice(f"{label} gets {name} on {tensor.device}; {place()}")
        if any(size > most for size, most in zip(grid, LARGEST_GRID, strict=True)):
            raise TooLarge(f"{label} has a grid of {grid}, at most {LARGEST_GRID}; {place()}")
        if form not in self._forms:
            name = f"{module}.{kernel.fn.__name__}"
            number = sum(key.startswith(f"{name} ") for key in self.compiled) + 1
            self._forms[form] = self.compiled[f"{name} {number}"] = replace(need, grids={})
        grids, key = self._forms[form].grids, ",".join(map(str, grid))
        grids[key] = grids.get(key, 0) + 1
        self._meter.count.add(label, sum(tensor.nbytes for tensor in used.values()), flops(module, given))

    def to_json(self) -> dict[str, Any]:
        return {name: asdict(form) for name, form in sorted(self.compiled.items())}


def _launcher(source: Any, metadata: Any) -> Callable[..., None]:
    """What Triton calls for each launch of one compiled form of a kernel; it outlives the machine it was made on."""
    form, need = object(), Compiled(0, 0, metadata.shared, metadata.num_warps)

    def launch(x: int, y: int, z: int, stream: int, function: tuple[int, int], *rest: Any) -> None:
        need.registers, need.spills = function
        # packed metadata, launch metadata and two hooks come before the kernel's own arguments
        driver.active.launches.launched(source.fn, form, need, (x, y, z), rest[4:])

    return launch


class _Driver:
    """The part of Triton's driver interface that its JIT uses."""

    def __init__(self, launches: Launches) -> None:
        self.launches, self.utils, self.launcher_cls = launches, _Utilities(), _launcher

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", ARCHITECTURE, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_active_torch_device(self) -> torch.device:
        return torch.device("cuda", 0)


class _Utilities:
    def get_device_properties(self, device: int) -> dict[str, int]:
        return {
            "max_shared_mem": SHARED,
            "multiprocessor_count": MULTIPROCESSORS,
            "max_num_regs": 65536,
            "warpSize": 32,
        }

    def load_binary(
        self, name: str, cubin: bytes, shared: int, device: int
    ) -> tuple[str, tuple[int, int], int, int, int]:
        """(module, function, registers, bytes of spills, threads of the largest block); the function is its needs."""
        needs = aot.cubin_needs(cubin)
        return name, needs, *needs, 1024


def stub_driver(meter: Meter) -> Launches:
    """From now on Triton compiles and `meter` counts the launches; not with `TRITON_INTERPRET`.

    It stays so in this process: Triton's own driver, which would take its place again, needs libcuda.
    """
    launches = Launches(meter)
    driver.set_active(_Driver(launches))
    return launches
