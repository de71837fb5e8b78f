"""Runs every stage at ConsisID-preview's size in one process under a memory plan, and counts what it takes.

`python -m consisid_benchmarks.fake_gpu.planned SETTING…`: JSON, setting → its plan and its counts; "none" is no plan.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, cast

import torch

from consisid_benchmarks.fake_gpu.cases import begin_stage, counted
from consisid_benchmarks.fake_gpu.full_size import CONFIGS, FullSize
from consisid_benchmarks.fake_gpu.machine import device_tensor, host_tensor, machine
from consisid_benchmarks.fake_gpu.meter import FAKE, Meter
from consisid_benchmarks.fake_gpu.stages import run_stages
from consisid_runtime.engines import Engine
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.memory.needs import ORDER, read
from consisid_runtime.memory.plan import GIB, RESERVED, MemoryPlan, plan_memory
from consisid_runtime.memory.residency import Residency


class Planned(FullSize):
    """A bundle whose weights lie where a plan has them."""

    def __init__(self, found: MemoryPlan | None, configs: Mapping[str, Mapping[str, Any]] = CONFIGS) -> None:
        super().__init__(lambda name, shape, dtype: host_tensor(shape, dtype), configs=configs)
        self._residency = None if found is None else Residency(found, torch.device("cuda", 0))

    def module(self, name: str) -> Engine:
        known = name in self.loaded
        engine = super().module(name)
        if not known and self._residency is not None:
            with FAKE:  # the host's memory as well: the weights of a whole checkpoint are 21 GiB
                self._residency.adopt(name, cast(TorchEngine, engine))
        return engine


def run(
    found: MemoryPlan | None,
    configs: Mapping[str, Mapping[str, Any]] = CONFIGS,
    modules: Sequence[str] = ORDER,
    stage: str = "",
) -> dict[str, Any]:
    """Every module is loaded, or those of one stage, then every stage runs, or that one.

    Returns what `cases.counted` does, "load_bytes" and "peak_bytes" of tensors on the device at most while loading and
    running, "modules": module → the same while it runs, and "planned": what the plan says of that.
    """
    with machine() as (meter, launches), torch.no_grad():
        bundle = Planned(found, configs)
        for name in modules:
            bundle.module(name)
        loading = meter.stages["load"].peak_bytes
        for name in modules:
            engine = cast(TorchEngine, bundle.loaded[name])
            engine.turn = partial(_watched, engine.turn, name, meter)
        run_stages(bundle, lambda *shape: device_tensor(meter, *shape), begin_stage(meter), stage)
        return {
            **counted(meter, launches),
            "load_bytes": loading,
            "peak_bytes": max(count.peak_bytes for count in meter.stages.values()),
            "modules": {name: meter.peaks[name] for name in modules},
            "planned": None if found is None else dict(found.peaks),
        }


@contextmanager
def _watched(turn: Callable[[], AbstractContextManager[None]], name: str, meter: Meter) -> Iterator[None]:
    meter.watch("")  # weights that leave belong to the module before
    with turn():
        meter.watch(name)
        yield


def plan_for(setting: str) -> MemoryPlan | None:
    """The plan of a setting in GiB; None for "none"."""
    return None if setting == "none" else plan_memory(read(), int(setting) * GIB - RESERVED, f"memory {setting}")


if __name__ == "__main__":
    print(json.dumps({setting: run(plan_for(setting)) for setting in sys.argv[1:]}))
