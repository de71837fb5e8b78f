"""The table of builders: for each `consisid export --engine`, which module writes a network, and with which options.

A builder is added by a record here and the module that the record names. Whatever shapes what it writes is imported
by that module, directly or indirectly: `sources` follows the imports to decide whether a module is written again.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from consisid_runtime.engines.table import ENGINES, PRECISIONS

if TYPE_CHECKING:
    from consisid_export.bundle.task import ModuleTask, Toolchain

_NARROW = ("fp16", "bf16")


@dataclass(frozen=True, slots=True)
class Builder:
    """One way to write a module of a bundle.

    Attributes:
        name: `consisid export --engine`.
        engine: name of the engine (`ENGINES`) that runs what it writes.
        module: has `write(task) -> entry` and `toolchain() -> Toolchain`.
        extras: of consisid-runtime, beside [export]; each installs what it and its engine need.
        precisions: those it can write.
        options: "dynamic", "plugins" or "calibration" → the precisions in which it takes that option.
        traces: whether the network's definition shapes what is written.
        runs: whether what it writes is run here, and a whole denoising run with it.
        others: modules that another builder writes → its name.
    """

    name: str
    engine: str
    module: str
    extras: tuple[str, ...]
    precisions: tuple[str, ...] = PRECISIONS
    options: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    traces: bool = True
    runs: bool = False
    others: Mapping[str, str] = field(default_factory=dict)

    def file_name(self, module: str) -> str:
        """Of the file that the engine opens."""
        return f"{module}{ENGINES[self.engine].suffix}"

    def write(self, task: ModuleTask) -> dict[str, Any]:
        """Write one module. Returns its record in the manifest, but for engine, signature and sources."""
        entry: dict[str, Any] = importlib.import_module(self.module).write(task)
        return entry

    def toolchain(self) -> Toolchain:
        """What it builds with. Raises `MissingExtra` where that is not installed or needs a GPU."""
        found: Toolchain = importlib.import_module(self.module).toolchain()
        return found


BUILDERS = {
    builder.name: builder
    for builder in (
        Builder(
            "onnx",
            "onnx",
            "consisid_export.bundle.modules",
            ("cpu", "gpu"),
            options={"calibration": ("fp8",)},
            runs=True,
        ),
        # For CPUs: PyTorch has a form of the decoder for them (`cpu_decoder`).
        Builder(
            "mixed",
            "onnx",
            "consisid_export.bundle.modules",
            ("cpu",),
            ("fp32",),
            runs=True,
            others={"vae_decoder_first": "torch", "vae_decoder_next": "torch"},
        ),
        Builder(
            "torch",
            "torch",
            "consisid_export.bundle.write_weights",
            ("cpu", "gpu", "kernels"),
            traces=False,
        ),
        Builder(
            "tensorrt",
            "tensorrt",
            "consisid_export.bundle.write_tensorrt",
            ("tensorrt", "tensorrt-rtx"),
            options={"calibration": ("fp8",), "dynamic": PRECISIONS, "plugins": _NARROW},
        ),
        Builder(
            "torch-tensorrt",
            "tensorrt",
            "consisid_export.bundle.write_torch_tensorrt",
            ("torch-tensorrt", "tensorrt"),
            ("fp32", "fp16", "bf16"),
            {"dynamic": PRECISIONS},
        ),
    )
}
"""`--engine` → builder."""


def listed(names: Iterator[str] | tuple[str, ...] | Mapping[str, object], last: str = "or") -> str:
    """ "a, b or c"."""
    *first, end = names
    return f"{', '.join(first)} {last} {end}" if first else end


def taking(option: str) -> str:
    """The builders that take an option, for help and messages."""
    return listed(tuple(name for name, builder in BUILDERS.items() if option in builder.options))


class Support(NamedTuple):
    """One row of the support table: an engine of `consisid export`, the extra it runs with, and what it runs there."""

    engine: str
    extra: str
    precisions: tuple[str, ...]
    device: str


def support() -> list[Support]:
    """The rows of the support table."""
    return [
        Support(builder.name, target.extra, kept, target.device)
        for builder in BUILDERS.values()
        for target in ENGINES[builder.engine].targets
        if target.extra in builder.extras
        and (kept := tuple(name for name in target.precisions if name in builder.precisions))
    ]
