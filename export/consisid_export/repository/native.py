"""A bundle's networks as models of Triton server's own backends: `onnxruntime_onnx` or `tensorrt_plan`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx

from consisid_export.checkpoint.tensor_files import link
from consisid_runtime.bundle import Bundle
from consisid_runtime.errors import ExportRefused
from consisid_runtime.serve.repository import port_text
from consisid_runtime.signatures import Port, Signature

MODULES = (
    "aligner",
    "parser",
    "clip",
    "local_extractor",
    "text_encoder",
    "vae_encoder",
    "vae_decoder_first",
    "vae_decoder_next",
)
"""All but the DiT's: its loop carries state that no native model holds."""

FOUND = {"detector": "face/detector.onnx", "recogniser": "face/recogniser.onnx"}
"""Models that the checkpoint brings as ONNX files → their file in a bundle."""

_ONNX = ("onnxruntime_onnx", "model.onnx")
_TENSORRT = ("tensorrt_plan", "model.plan")
_NOTE = "# Written by `consisid repository --native`.\n"
_DTYPES: dict[int, str] = {
    onnx.TensorProto.FLOAT: "FP32",
    onnx.TensorProto.FLOAT16: "FP16",
    onnx.TensorProto.BFLOAT16: "BF16",
    onnx.TensorProto.INT64: "INT64",
    onnx.TensorProto.INT32: "INT32",
    onnx.TensorProto.UINT8: "UINT8",
}


def write_native(bundle: Bundle, folder: Path) -> list[str]:
    """Write a model for each network of `MODULES` and `FOUND` into `folder`; returns their names.

    Raises `ExportRefused` for a bundle that no native backend runs.
    """
    engine, versions = bundle.manifest["engine"], bundle.manifest["versions"]
    if engine not in ("onnx", "tensorrt"):
        raise ExportRefused(
            f"Triton server has no backend for engine {engine!r}; export with --engine onnx or tensorrt"
        )
    if "tensorrt-rtx" in versions:
        raise ExportRefused(
            "Triton server's tensorrt backend cannot load TensorRT-RTX engines; export with --engine tensorrt where "
            "`tensorrt` is installed"
        )
    for name in MODULES:
        record = bundle.manifest["modules"][name]
        signature = bundle.signature(name)
        if engine == "tensorrt":
            built = record["tensorrt"]
            config = native_config(engine_signature(signature, built), _TENSORRT[0], profiles=len(built["profiles"]))
            _write_model(bundle, folder / name, config, record["files"], _TENSORRT[1])
        else:
            _write_model(bundle, folder / name, native_config(signature, _ONNX[0]), record["files"], _ONNX[1])
    for name, file in FOUND.items():
        _write_model(
            bundle, folder / name, native_config(graph_signature(name, bundle.file(file)), _ONNX[0]), [file], _ONNX[1]
        )
    return [*MODULES, *FOUND]


def native_config(signature: Signature, platform: str, *, profiles: int = 1) -> str:
    """`config.pbtxt` of one network. Batches are a matter of its signature, hence `max_batch_size: 0`.

    Args:
        profiles: of a TensorRT engine; Triton server would use the first alone.
    """
    ports = "".join(
        f"{side} {{ {port_text(port)} }}\n"
        for side, ports in (("input", signature.inputs), ("output", signature.outputs))
        for port in ports
    )
    chosen = ", ".join(f'"{index}"' for index in range(profiles))
    groups = f"instance_group [ {{ kind: KIND_GPU count: 1 profile: [ {chosen} ] }} ]\n" if profiles > 1 else ""
    return f'{_NOTE}name: "{signature.name}"\nplatform: "{platform}"\nmax_batch_size: 0\n{ports}{groups}'


def engine_signature(signature: Signature, record: Mapping[str, Any]) -> Signature:
    """`signature` as a TensorRT engine has it: its own tensor names, and numbers where all profiles have the same.

    Args:
        record: the manifest's, as `tensorrt.build_engine` returned it.
    """
    dims: dict[str, int] = {}
    for port in signature.inputs:
        for axis, size in port.dynamic_axes.items():
            extents = {shape[axis] for profile in record["profiles"] for shape in profile[port.name]}
            symbols = [factor for factor in size.split("*") if not factor.isdigit()]
            if len(extents) == 1 and len(symbols) == 1:
                unit = port.bind({symbols[0]: 1}).shape[axis]
                assert isinstance(unit, int)
                dims[symbols[0]] = extents.pop() // unit
    names: Mapping[str, str] = record.get("bindings", {})

    def renamed(ports: Iterable[Port]) -> tuple[Port, ...]:
        return tuple(Port(names.get(port.name, port.name), port.dtype, port.bind(dims).shape) for port in ports)

    return Signature(signature.name, renamed(signature.inputs), renamed(signature.outputs))


def graph_signature(name: str, path: Path) -> Signature:
    """The signature that an ONNX file states; what it leaves open has the symbol "any"."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return Signature(
        name,
        tuple(_port(value) for value in graph.input if value.name not in weights),
        tuple(_port(value) for value in graph.output),
    )


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    return Port(value.name, _DTYPES[kind.elem_type], tuple(dim.dim_value or "any" for dim in kind.shape.dim))


def _write_model(bundle: Bundle, folder: Path, config: str, files: list[str], model: str) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    link(bundle.file(files[0]), version / model, copy=False)
    for weights in files[1:]:  # the graph names them
        link(bundle.file(weights), version / weights, copy=False)
