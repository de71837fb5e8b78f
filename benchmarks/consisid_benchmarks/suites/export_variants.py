"""The variants of suite `export`: ways to export the denoiser's step to ONNX, and a check of their equivalence."""

from __future__ import annotations

import logging
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import onnx
import torch

from consisid_export.bundle.modules import Calibration, write_module
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import Skeleton
from consisid_export.onnx.fp8 import quantised_layers
from consisid_export.onnx.precision import PRECISIONS
from consisid_export.onnx.samples import CHECK_SIZES, TRACE_SIZES, sample_inputs
from consisid_export.onnx.weights import stored_weights
from consisid_export.verify.module import relative_error
from consisid_measurement.harness import Mismatch
from consisid_runtime.engines.onnxruntime import OnnxEngine
from consisid_runtime.models import networks
from consisid_runtime.signatures import DIT_STEP, Signature

MODULE = "dit_step"
LIMIT = 1e-5
"""Largest accepted relative L2 distance of two variants' outputs in float32."""


def step_signature(checkpoint: Checkpoint) -> Signature:
    """The step's signature with the sizes of a checkpoint."""
    return DIT_STEP.bind(checkpoint.config.transformer.dims)


def _ours(checkpoint: Checkpoint, precision: str, folder: Path) -> None:
    write_module(MODULE, checkpoint, folder, step_signature(checkpoint), precision=precision)


def _torch(options: Mapping[str, Any], checkpoint: Checkpoint, precision: str, folder: Path) -> None:
    """`torch.onnx.export` of the same network, loaded as for inference, with the same names and dynamic axes."""
    signature = step_signature(checkpoint)
    network = networks.load(MODULE, checkpoint, PRECISIONS[precision])
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            tuple(sample_inputs(signature, TRACE_SIZES).values()),
            folder / f"{MODULE}.onnx",
            dynamo=True,
            external_data=True,
            input_names=[port.name for port in signature.inputs],
            output_names=[port.name for port in signature.outputs],
            dynamic_shapes=tuple(
                dict.fromkeys(port.dynamic_axes, torch.export.Dim.DYNAMIC) for port in signature.inputs
            ),
            verbose=False,
            **options,
        )


VARIANTS: dict[str, Callable[[Checkpoint, str, Path], None]] = {
    "ours": _ours,
    "torch-onnx-export": partial(_torch, {}),
    "torch-onnx-export/unoptimised": partial(_torch, {"optimize": False}),
    "torch-onnx-export/unoptimised-opset-23": partial(_torch, {"optimize": False, "opset_version": 23}),
}
"""Name → function of (checkpoint, precision, folder) that writes `dit_step.onnx`.

The peer runs with its defaults and in its fastest configurations: without its optimiser, and with our opset.
"""


def write_step(variant: str, checkpoint: Path, precision: str, folder: Path) -> None:
    """Write the step's graph and weights into an empty folder with one of `VARIANTS`."""
    VARIANTS[variant](Checkpoint(checkpoint), precision, folder)


def write_step_in_fp8(checkpoint: Path, folder: Path) -> None:
    """Write the step in fp8 with our exporter, to measure the cost of doing so.

    The calibration ranges are placeholders, since calibrating a checkpoint of full size needs a GPU.
    """
    opened = Checkpoint(checkpoint)
    ranges = dict.fromkeys(quantised_layers(networks.load(MODULE, Skeleton(opened), None)), 10.0)
    calibration = Calibration(ranges, samples=list)
    write_module(MODULE, opened, folder, step_signature(opened), precision="fp8", calibration=calibration)


def write_stored(checkpoint: Path, modules: Iterable[str], folder: Path) -> None:
    """Write modules with our exporter, each in the dtype of its stored weights."""
    opened = Checkpoint(checkpoint)
    signatures = networks.signatures(opened, PRECISIONS[stored_precision("vae_decoder_next", opened)])
    for name in modules:
        write_module(name, opened, folder, signatures[name], precision=stored_precision(name, opened))


def stored_precision(module: str, checkpoint: Checkpoint) -> str:
    """The precision of most of a module's stored weights; CLIP stores its positions in a wider one."""
    sizes: Counter[torch.dtype] = Counter()
    for source in stored_weights(module, checkpoint).values():
        sizes[source.dtype] += torch.Size(source.shape).numel()
    return next(precision for precision, dtype in PRECISIONS.items() if dtype == max(sizes, key=sizes.__getitem__))


def timed(work: Callable[[Path], None], folder: Path) -> dict[str, float]:
    """Run `work` on `folder`; returns its seconds and the bytes of disk that it wrote."""
    begin = time.perf_counter()
    work(folder)
    return {"export_seconds": time.perf_counter() - begin, "written_bytes": float(written_bytes(folder))}


def written_bytes(folder: Path) -> int:
    """Disk space of a folder's files, without files that are hard-linked elsewhere, which take no space."""
    found = [path.lstat() for path in folder.rglob("*") if path.is_file()]
    return sum(512 * status.st_blocks for status in found if status.st_nlink == 1)


def require_same_network(graphs: Mapping[str, Path], signature: Signature) -> None:
    """Check that all variants' files are equivalent, by running them in ONNX Runtime on inputs of two sizes.

    Raises `Mismatch` unless they have the same ports and dynamic axes, and outputs within `LIMIT` of the first
    variant's.
    """
    (first, reference), *others = graphs.items()
    ports = interface(reference)
    for variant, graph in others:
        if interface(graph) != ports:
            raise Mismatch(f"{variant} has inputs and outputs {interface(graph)}, {first} has {ports}")
    engines = {variant: OnnxEngine(graph, signature, device="cpu") for variant, graph in graphs.items()}
    for sizes in CHECK_SIZES:
        inputs = sample_inputs(signature, sizes)
        wanted = engines[first](inputs)
        for variant, _ in others:
            for name, found in engines[variant](inputs).items():
                error = relative_error(found, wanted[name])
                if not error <= LIMIT:
                    raise Mismatch(f"{name} of {variant} and {first} differ by {error:.1e}, the limit is {LIMIT:.0e}")


def interface(graph: Path) -> list[tuple[str, int, tuple[int | None, ...]]]:
    """Name, ONNX element type and sizes (None if dynamic) of a graph's inputs, then of its outputs."""
    model = onnx.load(graph, load_external_data=False).graph
    types = [(value.name, value.type.tensor_type) for value in (*model.input, *model.output)]
    return [
        (name, kind.elem_type, tuple(dim.dim_value if dim.HasField("dim_value") else None for dim in kind.shape.dim))
        for name, kind in types
    ]
