"""Runs a module's `.onnx` file with ONNX Runtime, on CPU or CUDA."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from consisid_runtime.cpus import default_threads
from consisid_runtime.engines import check_device
from consisid_runtime.errors import MissingExtra
from consisid_runtime.signatures import Signature

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle

# ONNX Runtime 1.32 would else keep an identifier of the user and a database for telemetry, in ~/.cache/Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")


def load_module(bundle: Bundle, name: str) -> OnnxEngine:
    """One module of a bundle. Raises what `OnnxEngine` raises."""
    graph, *weights = bundle.manifest["modules"][name]["files"]
    linked = weights if any((bundle.path / file).is_symlink() for file in (graph, *weights)) else ()
    signature = bundle.signature(name)
    return OnnxEngine(
        bundle.path / graph, signature, device=bundle.device, threads=bundle.threads, linked_weights=linked
    )


class OnnxEngine:
    """One ONNX Runtime session. Its threads do not spin, so that several engines can share the cores.

    Args:
        linked_weights: files beside the graph that this process reads, because links lead to them: ONNX Runtime reads
            no weights outside of the graph's folder.

    Raises `InvalidOption` for an unknown device, and `MissingExtra` where "cuda" was asked for and is not available, or
    an operator has no kernel in the graph's precision; the error's cause is then ONNX Runtime's `NotImplemented`.
    """

    def __init__(
        self,
        path: Path,
        signature: Signature,
        *,
        device: str = "auto",
        threads: int | None = None,
        linked_weights: Sequence[str] = (),
    ) -> None:
        check_device(device)
        try:
            import onnxruntime
        except ImportError as missing:
            raise MissingExtra(
                "a bundle of ONNX engines needs ONNX Runtime: pip install 'consisid-runtime[cpu]' (or [gpu])"
            ) from missing
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads or default_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.log_severity_level = 3
        if linked_weights:
            contents = [np.memmap(path.with_name(name), np.uint8, "r") for name in linked_weights]
            sizes = [len(content) for content in contents]
            options.add_external_initializers_from_files_in_memory(list(linked_weights), contents, sizes)
        self._outputs = [port.name for port in signature.outputs]
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

        chosen = providers(device)
        try:
            self._session = onnxruntime.InferenceSession(path, options, providers=chosen)
        except NoKernel as problem:
            names = ", ".join(one if isinstance(one, str) else one[0] for one in chosen)
            raise MissingExtra(
                f"{signature.name} cannot run here: this build of ONNX Runtime, on {names}, "
                f"lacks an operator in the bundle's precision ({str(problem).splitlines()[0]}); bf16 runs on TensorRT, "
                "or by engine 'torch'; on a CPU, ONNX Runtime runs fp32, fp16 and fp8"
            ) from problem
        # ONNX Runtime goes on without a provider that fails to load.
        if device == "cuda" and "CUDAExecutionProvider" not in self._session.get_providers():
            raise MissingExtra(
                "device 'cuda': ONNX Runtime could not load its CUDA provider, CUDA or cuDNN libraries are missing: "
                "install those that this onnxruntime-gpu was built for"
            )

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        arrays = {name: tensor.contiguous().numpy(force=True) for name, tensor in inputs.items()}
        return dict(zip(self._outputs, map(torch.from_numpy, self._session.run(self._outputs, arrays)), strict=True))


def providers(device: str) -> list[str | tuple[str, dict[str, str]]]:
    """ONNX Runtime's execution providers, with their options, for "cpu", "cuda" or "auto".

    Its CUDA provider would else round float32 to TF32. Raises `MissingExtra` for a missing CUDA provider.
    """
    import onnxruntime

    available = "CUDAExecutionProvider" in onnxruntime.get_available_providers()
    if device == "cuda" and not available:
        raise MissingExtra("device 'cuda' needs ONNX Runtime for GPUs: pip install 'consisid-runtime[gpu]'")
    return (
        ["CPUExecutionProvider"]
        if device == "cpu" or not available
        else [("CUDAExecutionProvider", {"use_tf32": "0"}), "CPUExecutionProvider"]
    )
