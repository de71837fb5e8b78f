"""Writes a module as a TensorRT or TensorRT-RTX engine, built from its ONNX graph."""

from __future__ import annotations

from typing import Any

from consisid_export.bundle import modules
from consisid_export.bundle.engine_record import NOT_RUN, kept, timing_cache
from consisid_export.bundle.task import ModuleTask, Toolchain
from consisid_export.tensorrt import build


def toolchain() -> Toolchain:
    """The library that is installed, the GPUs it builds for, and what the graphs are made with."""
    library, version, architectures = build.target()
    return Toolchain({**modules.toolchain().versions, library: version}, tuple(architectures))


def write(task: ModuleTask) -> dict[str, Any]:
    """Export the graph, compare it, and build the engine. Returns the module's record."""
    out = task.work.folder / task.options.builder.file_name(task.name)
    with task.work.scratch() as folder:
        graph = modules.write_graph(task, folder, copy=False)
        record = build.build_engine(
            folder / f"{task.name}.onnx",
            task.signature,
            task.geometry,
            out,
            dynamic=task.options.dynamic,
            timing_cache=timing_cache(),
            plugins=task.options.plugins_in(task.name),
            progress=task.progress,
        )
    return {
        "files": [out.name],
        "precision": graph["precision"],
        "check": NOT_RUN,
        "graph": {key: graph[key] for key in ("opset", "check")},
        "tensorrt": kept(record),
    }
