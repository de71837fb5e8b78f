"""Builds ONNX graphs into TensorRT engines, by `tensorrt` (10.16, 11.x) or `tensorrt-rtx` (1.7).

Networks are strongly typed: the ONNX graph decides the precision of every operation, and no flag changes it.
TensorRT builds for the GPU of this machine; TensorRT-RTX builds for any of its architectures, without a GPU.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from consisid_export.tensorrt.graph import tensorrt_graph
from consisid_export.tensorrt.progress import Interrupts, make_monitor
from consisid_export.tensorrt.ranges import Profile, profiles, relevant, shape_range
from consisid_runtime.engines.tensorrt_library import load, log_of, reasons
from consisid_runtime.errors import ExportCancelled, ExportRefused, InvalidOption, MissingExtra
from consisid_runtime.events import Progress, silent
from consisid_runtime.files.atomic import write_file
from consisid_runtime.plan import Geometry
from consisid_runtime.signatures import Signature

COMPUTE_CAPABILITIES = ("SM89", "SM120")
"""What TensorRT-RTX builds for by default: Ada and Blackwell cards."""


def build_engine(
    onnx_path: str | Path,
    signature: Signature,
    sizes: Geometry | tuple[Profile, ...],
    out_path: str | Path,
    *,
    library: str | None = None,
    compute_capabilities: Sequence[str] | None = None,
    progress: Progress = silent,
    dynamic: bool = False,
    timing_cache: str | Path | None = None,
    plugins: bool = False,
) -> dict[str, Any]:
    """Build `onnx_path` into an engine; `out_path` is written atomically.

    Args:
        onnx_path: the graph; its external weights are read from the same folder.
        signature: bound to the checkpoint's sizes, as the graph was exported.
        sizes: the checkpoint's geometry, from which the profiles follow, or the profiles.
        library: "tensorrt", "tensorrt-rtx", or None for the first that is installed.
        compute_capabilities: "SM89", "SM120", … for TensorRT-RTX; TensorRT builds for this machine's GPU only.
        progress: called with (phase, done, total); what it raises cancels the build and is raised here.
        dynamic: with a geometry, accept other sizes than the checkpoint's own.
        timing_cache: file that keeps kernel timings from one build to the next. TensorRT-RTX has none.
        plugins: compute a step's attentions by this project's kernels; TensorRT-RTX has no plugins.

    Returns a record for the manifest: library, version, architectures, profiles, layers, the log's warnings, seconds.
    Raises `ExportRefused` with TensorRT's messages, `ExportCancelled` on Ctrl-C, `MissingExtra`,
    `InvalidOption` for a compute capability that the library lacks, `OutputUnwritable`.
    """
    onnx_path, out_path = Path(onnx_path), Path(out_path)
    name, trt = load(library)
    chosen = chosen_profiles(signature, sizes, dynamic=dynamic)
    started = time.monotonic()
    log = log_of(trt)
    log.lines.clear()
    capabilities = _capabilities(trt, name, compute_capabilities)
    if plugins:
        _use_plugins(name, capabilities)
    builder = _start(trt, log)
    config = builder.create_builder_config()
    if name == "tensorrt-rtx":
        _target(trt, config, capabilities)
    config.clear_flag(trt.BuilderFlag.TF32)  # float32 in the graph means float32
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    if not parser.parse(tensorrt_graph(onnx_path, signature, chosen, plugins).SerializeToString(), str(onnx_path)):
        problems = "\n  ".join(_parse_errors(parser))
        raise ExportRefused(f"{signature.name}: TensorRT cannot read the graph:\n  {problems}\n{reasons(log)}")
    shapes = [_add_profile(builder, config, signature, profile) for profile in chosen]
    cache = _read_timing_cache(config, timing_cache) if name == "tensorrt" else None
    plan = _build(trt, builder, network, config, signature.name, progress)
    write_file(out_path, plan, parents=True)
    if cache is not None and timing_cache is not None:
        write_file(timing_cache, cache.serialize(), parents=True)
    return {
        "library": name,
        "version": trt.__version__,
        "architectures": _architectures(capabilities),
        "profiles": shapes,
        "layers": network.num_layers,
        "log": list(log.lines),
        "seconds": round(time.monotonic() - started, 3),
    }


def target(library: str | None = None, compute_capabilities: Sequence[str] | None = None) -> tuple[str, str, list[str]]:
    """Library, version and architectures that `build_engine` builds with and for. Raises what it raises."""
    name, trt = load(library)
    return name, trt.__version__, _architectures(_capabilities(trt, name, compute_capabilities))


def unsupported_nodes(
    onnx_path: str | Path,
    signature: Signature,
    sizes: Geometry | tuple[Profile, ...],
    *,
    library: str | None = None,
    dynamic: bool = False,
) -> list[str]:
    """Every node that TensorRT does not support, with the reason; empty where it supports all. Nothing is built."""
    _, trt = load(library)
    chosen = chosen_profiles(signature, sizes, dynamic=dynamic)
    model = tensorrt_graph(Path(onnx_path), signature, chosen).SerializeToString()
    log = log_of(trt)
    log.lines.clear()
    builder = _start(trt, log)
    network = builder.create_network(_network_flags(trt))
    parser = trt.OnnxParser(network, log)
    return [] if parser.supports_model_v2(model, str(onnx_path)) else _parse_errors(parser) or [reasons(log)]


def chosen_profiles(
    signature: Signature, sizes: Geometry | tuple[Profile, ...], *, dynamic: bool
) -> tuple[Profile, ...]:
    """The profiles, restricted to the sizes of a module's inputs. Raises `ExportRefused` for a size without a range."""
    try:
        return relevant(signature, profiles(sizes, dynamic=dynamic) if isinstance(sizes, Geometry) else sizes)
    except KeyError as missing:
        raise ExportRefused(f"{signature.name}: no range is declared for the size {missing}") from None


def _use_plugins(library: str, capabilities: tuple[str, ...]) -> None:
    if library != "tensorrt":
        raise InvalidOption(f"plugins are for library 'tensorrt', got {library!r}, which has none")
    from consisid_export.tensorrt.plugins import register_plugins

    register_plugins(int(capabilities[0][2:]))


def _network_flags(trt: Any) -> int:
    """TensorRT 10 has a flag for strongly typed networks; in 11 it is deprecated, since all networks are."""
    return 1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED) if trt.__version__.startswith("10.") else 0


def _capabilities(trt: Any, name: str, wanted: Sequence[str] | None) -> tuple[str, ...]:
    """The GPUs to build for, as "SM89": those asked for, or the one that TensorRT finds."""
    if name == "tensorrt":
        if wanted:
            raise InvalidOption(
                f"TensorRT builds for this machine's GPU only, got {', '.join(wanted)}; or use tensorrt-rtx"
            )
        import torch

        if not torch.cuda.is_available():
            raise MissingExtra("building with TensorRT needs an NVIDIA GPU; library 'tensorrt-rtx' builds without one")
        major, minor = torch.cuda.get_device_capability()
        return (f"SM{major}{minor}",)
    known = [capability for capability in trt.ComputeCapability.__members__ if capability.startswith("SM")]
    chosen = tuple(wanted or COMPUTE_CAPABILITIES)
    if unknown := [capability for capability in chosen if capability not in known]:
        raise InvalidOption(
            f"{name} {trt.__version__} builds for {', '.join(known)}, got {', '.join(unknown)}; for other GPUs use "
            "library 'tensorrt'"
        )
    return chosen


def _architectures(capabilities: Sequence[str]) -> list[str]:
    return [capability.lower().replace("sm", "sm_") for capability in capabilities]


def _start(trt: Any, log: Any) -> Any:
    try:
        return trt.Builder(log)
    except TypeError as error:  # the bindings raise it where TensorRT returns no builder
        raise ExportRefused(f"TensorRT {trt.__version__} cannot build on this machine:\n{reasons(log)}") from error


def _target(trt: Any, config: Any, capabilities: Sequence[str]) -> None:
    config.num_compute_capabilities = len(capabilities)
    for i, capability in enumerate(capabilities):
        config.set_compute_capability(getattr(trt.ComputeCapability, capability), i)


def _add_profile(builder: Any, config: Any, signature: Signature, ranges: Profile) -> dict[str, list[list[int]]]:
    """Add one profile; returns input → its least, tuned and greatest shape."""
    shapes = {port.name: shape_range(port, ranges) for port in signature.inputs}
    profile = builder.create_optimization_profile()
    for name, (minimum, optimum, maximum) in shapes.items():
        profile.set_shape(name, minimum, optimum, maximum)
    if config.add_optimization_profile(profile) < 0:
        raise ExportRefused(f"{signature.name}: TensorRT does not accept the profile {shapes}")
    return {name: [list(shape) for shape in found] for name, found in shapes.items()}


def _build(trt: Any, builder: Any, network: Any, config: Any, module: str, progress: Progress) -> Any:
    """The serialised engine."""
    log = log_of(trt)
    with Interrupts() as interrupts:
        monitor = make_monitor(trt, progress, interrupts)
        config.progress_monitor = monitor
        plan = builder.build_serialized_network(network, config)
    if monitor.failure is not None and not isinstance(monitor.failure, KeyboardInterrupt):
        raise monitor.failure
    if monitor.cancelled or interrupts.pending:
        raise ExportCancelled(f"{module}: the build was cancelled; nothing was written")
    if plan is None:
        raise ExportRefused(f"{module}: TensorRT cannot build the engine:\n{reasons(log)}")
    return plan


def _read_timing_cache(config: Any, path: str | Path | None) -> Any:
    """The cache in the file; a new one where there is no file, or it is of another GPU or TensorRT version."""
    if path is None:
        return None
    kept = Path(path).read_bytes() if Path(path).is_file() else b""
    for content in (kept, b""):
        cache = config.create_timing_cache(content)
        if cache is not None and config.set_timing_cache(cache, False):
            return cache
    return None


def _parse_errors(parser: Any) -> list[str]:
    found = []
    for i in range(parser.num_errors):
        problem = parser.get_error(i)
        found.append(f"{problem.node_operator()} {problem.node_name()!r}: {problem.code().name}, {problem.desc()}")
    return found
