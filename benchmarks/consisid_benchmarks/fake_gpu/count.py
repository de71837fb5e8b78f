"""What a stage makes a GPU do: kernels, bytes, arithmetic, memory, waits of the host."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

COPIES = "copy between host and device"


@dataclass(slots=True)
class Work:
    """Of all launches of one kernel.

    Attributes:
        launches: how many.
        bytes: of all tensors that they read or write, each once a launch.
        flops: floating-point operations of matrix products and convolutions; 0 for everything else.
    """

    launches: int = 0
    bytes: int = 0
    flops: int = 0


@dataclass(slots=True)
class Count:
    """Of one stage.

    Attributes:
        kernels: name → its work; PyTorch's operators by their own names, ours as "triton.MODULE".
        waits: where the host waits for the device, "file function: source line" and what for → how often.
        start_bytes, peak_bytes: of tensors on the device, when the stage begins and at most.
        peak_at: the line that allocated at the peak.
    """

    kernels: dict[str, Work] = field(default_factory=dict)
    waits: dict[str, int] = field(default_factory=dict)
    start_bytes: int = 0
    peak_bytes: int = 0
    peak_at: str = ""

    @property
    def total(self) -> Work:
        """Of all kernels together."""
        every = self.kernels.values()
        return Work(sum(w.launches for w in every), sum(w.bytes for w in every), sum(w.flops for w in every))

    def add(self, name: str, moved: int, flops: int) -> None:
        work = self.kernels.setdefault(name, Work())
        work.launches += 1
        work.bytes += moved
        work.flops += flops

    def to_json(self) -> dict[str, Any]:
        """With the totals, which `from_json` ignores, and everything in the order of its name."""
        data = asdict(self)
        data |= {"kernels": dict(sorted(data["kernels"].items())), "waits": dict(sorted(self.waits.items()))}
        return {"total": asdict(self.total), **data}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Count:
        kernels = {name: Work(**work) for name, work in data["kernels"].items()}
        return cls(**{**{name: value for name, value in data.items() if name != "total"}, "kernels": kernels})


@dataclass(slots=True)
class Compiled:
    """A kernel of ours as Triton's JIT compiled it for one launch's types, and its launches.

    Attributes:
        registers, spills: of a thread; spills in bytes. shared: bytes of a block.
        grids: "x,y,z" → launches.
    """

    registers: int
    spills: int
    shared: int
    warps: int
    grids: dict[str, int] = field(default_factory=dict)
