"""Writes a bundle's networks as models of Triton server's own backends."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import onnx

from consisid_export.checkpoint.tensor_files import link
from consisid_export.onnx.structure import KSERVE
from consisid_runtime.bundle import Bundle
from consisid_runtime.engines.table import ENGINES, TritonModel, engine_kind
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
"""All but those of the transformer: its loop carries state that no native model holds."""

FOUND = {"detector": "face/detector.onnx", "recogniser": "face/recogniser.onnx"}
"""ONNX models of the checkpoint itself → their file in a bundle."""

_NOTE = "# Written by `consisid repository --native`.\n"


def write_native(bundle: Bundle, folder: Path) -> list[str]:
    """Write a model for each network of `MODULES` and `FOUND` into `folder`; returns their names.

    Raises `ExportRefused` for a bundle that no native backend runs.
    """
    models = {name: native_model(bundle, name) for name in MODULES}
    for name, model in models.items():
        record, signature, profiles = bundle.manifest["modules"][name], bundle.signature(name), 1
        if built := record.get("tensorrt"):
            signature, profiles = engine_signature(signature, built), len(built["profiles"])
        config = native_config(signature, model.platform, profiles=profiles)
        _write_model(bundle, folder / name, config, record["files"], model.file)
    onnx_model = ENGINES["onnx"].triton
    assert onnx_model is not None
    for name, file in FOUND.items():
        config = native_config(graph_signature(name, bundle.file(file)), onnx_model.platform)
        _write_model(bundle, folder / name, config, [file], onnx_model.file)
    return [*MODULES, *FOUND]


def native_model(bundle: Bundle, name: str) -> TritonModel:
    """How Triton server's own backend takes a module. Raises `ExportRefused` where no backend does."""
    record = bundle.manifest["modules"][name]
    kind = engine_kind(record["engine"])
    if kind.triton is None:
        others = " or ".join(other.name for other in ENGINES.values() if other.triton)
        raise ExportRefused(f"Triton server has no backend for engine {kind.name!r}; export with --engine {others}")
    if record.get("tensorrt", {}).get("library") == "tensorrt-rtx":
        raise ExportRefused(
            "Triton server's tensorrt backend cannot load TensorRT-RTX engines; export with --engine tensorrt where "
            "`tensorrt` is installed"
        )
    return kind.triton


def native_config(signature: Signature, platform: str, *, profiles: int = 1) -> str:
    """`config.pbtxt` of one network. Its signature declares the batch axis, hence `max_batch_size: 0`.

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
    """`signature` in a TensorRT engine's own tensor names, with numbers where all profiles have the same size.

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
    """The signature that an ONNX file declares; a size that it leaves open has the symbol "any"."""
    graph = onnx.load(path, load_external_data=False).graph
    weights = {tensor.name for tensor in graph.initializer}
    return Signature(
        name,
        tuple(_port(value) for value in graph.input if value.name not in weights),
        tuple(_port(value) for value in graph.output),
    )


def _port(value: onnx.ValueInfoProto) -> Port:
    kind = value.type.tensor_type
    return Port(value.name, KSERVE[kind.elem_type], tuple(dim.dim_value or "any" for dim in kind.shape.dim))


def _write_model(bundle: Bundle, folder: Path, config: str, files: list[str], model: str) -> None:
    version = folder / "1"
    version.mkdir(parents=True)
    (folder / "config.pbtxt").write_text(config, encoding="utf-8")
    link(bundle.file(files[0]), version / model, copy=False)
    for weights in files[1:]:  # the graph names them
        link(bundle.file(weights), version / weights, copy=False)
