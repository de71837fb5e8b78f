"""The table of engines: for each, which module of this folder loads its files, and where and in what precision it runs.

An engine is added by a record here and the module that the record names; the exporter has a matching table of builders
(`consisid_export.bundle.builders`). Nothing is imported before it is used.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consisid_runtime.errors import BundleVersion

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle
    from consisid_runtime.engines import Engine

PRECISIONS = ("fp32", "fp16", "bf16", "fp8")


@dataclass(frozen=True, slots=True)
class Target:
    """Hardware that an engine runs on.

    Attributes:
        device: "cpu" or "cuda".
        extra: of consisid-runtime; installs what the engine needs there.
        precisions: those that the engine computes in there.
    """

    device: str
    extra: str
    precisions: tuple[str, ...] = PRECISIONS


@dataclass(frozen=True, slots=True)
class TritonModel:
    """How Triton server's own backend takes an engine's file.

    Attributes:
        backend: its name for people.
        platform: its name in `config.pbtxt`.
        file: the name that it expects of a model's file.
    """

    backend: str
    platform: str
    file: str


@dataclass(frozen=True, slots=True)
class EngineKind:
    """One engine.

    Attributes:
        name: as a module's record in the manifest has it.
        suffix: of the file that the engine opens for a module.
        module: has `load_module(bundle, name) -> Engine`, for one module of a bundle.
        targets: hardware it runs on.
        triton: None where Triton server has no backend for it.
    """

    name: str
    suffix: str
    module: str
    targets: tuple[Target, ...]
    triton: TritonModel | None = None

    def load(self, bundle: Bundle, name: str) -> Engine:
        """Load one module of a bundle whose files are verified. Raises what the engine raises."""
        engine: Engine = importlib.import_module(self.module).load_module(bundle, name)
        return engine


ENGINES = {
    kind.name: kind
    for kind in (
        EngineKind(
            "onnx",
            ".onnx",
            "consisid_runtime.engines.onnxruntime",
            (Target("cpu", "cpu", ("fp32", "fp16", "fp8")), Target("cuda", "gpu", ("fp32", "fp16", "fp8"))),
            TritonModel("ONNX Runtime", "onnxruntime_onnx", "model.onnx"),
        ),
        EngineKind(
            "torch",
            ".safetensors",
            "consisid_runtime.engines.torch",
            (
                Target("cpu", "cpu"),
                Target("cuda", "gpu", ("fp32",)),
                Target("cuda", "kernels", ("fp16", "bf16", "fp8")),
            ),
        ),
        EngineKind(
            "tensorrt",
            ".engine",
            "consisid_runtime.engines.tensorrt",
            (Target("cuda", "tensorrt"), Target("cuda", "tensorrt-rtx")),
            TritonModel("TensorRT", "tensorrt_plan", "model.plan"),
        ),
    )
}
"""Name → engine."""


def engine_kind(name: str) -> EngineKind:
    """The record of an engine that a manifest names. Raises `BundleVersion` where this version has none."""
    if name not in ENGINES:
        known = ", ".join(ENGINES)
        raise BundleVersion(f"the bundle is for engine {name!r}, this version has {known}; export the checkpoint again")
    return ENGINES[name]
