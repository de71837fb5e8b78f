"""Carries out a memory plan: before a module runs, its weights are on the device, and those that must be away are."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Protocol

import torch
from torch import nn

from consisid_runtime.memory.needs import SHARED
from consisid_runtime.memory.plan import MemoryPlan, needed
from consisid_runtime.memory.weights import Copies, StreamedBlocks, Weights

_BLOCKS = ("blocks", "transformer_blocks")
"""What the step's blocks are called in the forms that run."""


class Movable(Protocol):
    """An engine whose weights can be moved.

    Attributes:
        network: with everything that it computes with among its parameters and buffers.
        turn: entered for every call.
    """

    network: nn.Module
    turn: Callable[[], AbstractContextManager[None]]


class Residency:
    """The weights of a bundle's modules on one device. Calls of several threads take turns.

    Every call puts the weights where the plan has them, whatever happened before: a request that fails leaves nothing
    that the next one does not put right.
    """

    def __init__(self, plan: MemoryPlan, device: torch.device) -> None:
        self.plan = plan
        self._copies = Copies(device)
        self._weights: dict[str, Weights] = {}
        self._streamed: StreamedBlocks | None = None
        self._lock = threading.RLock()

    def adopt(self, name: str, engine: Movable) -> None:
        """From now on the weights of a module that was just loaded are where the plan has them."""
        owner = SHARED.get(name, name)
        streams = name == "dit_step" and self.plan.streamed
        if streams:
            self._stream(engine.network)
        if owner in self._weights:
            self._weights[owner].put_away()  # an engine puts its network on the device, also one that it shares
        elif streams or owner not in self.plan.resident:
            besides = self._streamed.streamed if streams and self._streamed is not None else ()
            self._weights[owner] = Weights(engine.network, self._copies, besides)
            self._free()
        engine.turn = partial(self._turn, name)

    @property
    def on_device(self) -> set[str]:
        """The modules with weights on the device, of those whose weights come and go."""
        return {name for name, weights in self._weights.items() if weights.on_device}

    @contextmanager
    def _turn(self, name: str) -> Iterator[None]:
        company = self.plan.company[name]
        with self._lock:
            dropped = [self._drop(other) for other in self._weights if other not in company]
            if any(dropped):
                self._free()
            for other in needed(name):
                if other in self._weights:
                    self._require(other)
            for other in company:
                if other in self._weights:
                    self._weights[other].bring()
            yield

    def _require(self, name: str) -> None:
        self._weights[name].require()
        if name == "dit_step" and self._streamed is not None:
            self._streamed.attach()

    def _drop(self, name: str) -> bool:
        if name == "dit_step" and self._streamed is not None:
            self._streamed.detach()
        return self._weights[name].drop()

    def _stream(self, network: nn.Module) -> None:
        (name,) = (each for each in _BLOCKS if hasattr(network, each))
        self._streamed = StreamedBlocks(list(getattr(network, name)), self.plan.streamed, self._copies)
        setattr(network, name, self._streamed)

    def _free(self) -> None:
        """Give the allocator's unused memory back: weights of other sizes would not fit into its pieces."""
        if self._copies.device.type == "cuda":
            torch.cuda.empty_cache()
