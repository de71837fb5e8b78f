"""Counts what each module needs of the device's memory at ConsisID-preview's size: what memory plans are made of."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from torch import Tensor, nn

from consisid_benchmarks.fake_gpu.full_size import CONFIGS, FullSize
from consisid_benchmarks.fake_gpu.machine import host_tensor
from consisid_benchmarks.fake_gpu.meter import ALIGNMENT, Meter
from consisid_runtime.engines import Engine, place_of
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.memory.needs import SHARED, architecture, positions, size_of
from consisid_runtime.options import Options
from consisid_runtime.plan import plan


class CountedNeeds:
    """Gathers the needs from bundles that each run some of the stages.

    Args:
        configs: component → its configuration, instead of ConsisID-preview's.
    """

    def __init__(self, meter: Meter, configs: Mapping[str, Mapping[str, Any]] = CONFIGS) -> None:
        self.meter, self.configs = meter, configs
        self.weights: dict[str, int] = {}
        self.working: dict[str, int] = {}
        self._other: dict[str, Any] = {}

    def bundle(self) -> FullSize:
        """A bundle whose modules are counted until `end`."""
        self.meter.peaks.clear()
        return _Counted(self)

    def end(self, bundle: FullSize) -> None:
        """Its stages are done."""
        self.meter.watch("")
        size = size_of(bundle.config, plan(Options(), bundle.config.geometry))
        fixed = positions(bundle.config, size)
        here = sum(self.weights[name] for name in bundle.loaded if name not in SHARED)
        here += fixed if "dit_step" in bundle.loaded else 0
        self.working |= {name: self.meter.peaks[name] - here for name in bundle.loaded}
        self._other |= {"fixed": fixed, "size": {"tokens": size.tokens, "pixels": size.pixels}}
        self._architecture = architecture(bundle.config)
        if step := bundle.loaded.get("dit_step"):
            blocks = cast(nn.ModuleList, cast(TorchEngine, step).network.blocks)
            weights = [tensor for tensor in blocks[0].parameters() if tensor.numel()]
            self._other |= {"blocks": len(blocks), "block": sum(map(_aligned, weights))}

    def to_json(self) -> dict[str, Any]:
        """As `consisid_runtime.memory.needs` reads it."""
        needs = {"weights": self.weights, "working": self.working, **self._other}
        return {"architecture": self._architecture, "needs": needs}


class _Counted(FullSize):
    def __init__(self, needs: CountedNeeds) -> None:
        super().__init__(lambda name, shape, dtype: host_tensor(shape, dtype), configs=needs.configs)
        self._needs = needs

    def module(self, name: str) -> Engine:
        before = self._needs.meter.live
        known = name in self.loaded
        engine = super().module(name)
        if not known and name not in SHARED:
            self._needs.weights[name] = self._needs.meter.live - before
        return _Watched(engine, name, self._needs.meter)


class _Watched:
    """An engine that says when it is called."""

    def __init__(self, engine: Engine, name: str, meter: Meter) -> None:
        self.device, self._engine, self._name, self._meter = place_of(engine), engine, name, meter

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        self._meter.watch(self._name)
        return self._engine(inputs)


def _aligned(tensor: Tensor) -> int:
    return -(-tensor.nbytes // ALIGNMENT) * ALIGNMENT
