"""Runs a module's `.onnx` file with ONNX Runtime, on CPU or CUDA."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from consisid_runtime.cpus import default_threads
from consisid_runtime.engines import check_device, gpu_number, require_gpu
from consisid_runtime.engines.io_binding import BoundSession
from consisid_runtime.errors import InvalidOption, MissingExtra
from consisid_runtime.signatures import Signature

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

    from consisid_runtime.bundle import Bundle

# ONNX Runtime 1.32 would else keep an identifier of the user and a database for telemetry, in ~/.cache/Microsoft.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

_CUDA = "CUDAExecutionProvider"
_HEAVY = {"Attention", "Conv", "Gemm", "MatMul"}


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

    On CUDA, where PyTorch has it too, tensors are taken and left on the device; else they pass through NumPy.

    Attributes:
        device: where it takes tensors without a copy.

    Args:
        linked_weights: files beside the graph that this process reads, because links lead to them: ONNX Runtime reads
            no weights outside of the graph's folder.

    Raises `InvalidOption` for an unknown device, and `MissingExtra` where CUDA was asked for and is not available, or
    would leave heavy operators on the CPU, or an operator has no kernel in the graph's precision; the error's cause is
    then ONNX Runtime's `NotImplemented`.
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
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
        if linked_weights:
            contents = [np.memmap(path.with_name(name), np.uint8, "r") for name in linked_weights]
            sizes = [len(content) for content in contents]
            options.add_external_initializers_from_files_in_memory(list(linked_weights), contents, sizes)
        self._outputs = [port.name for port in signature.outputs]
        from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

        chosen = providers(device)
        # On a CPU the second call would else take all that it needs in one block, beside the arena's of the first.
        options.enable_mem_pattern = chosen != ["CPUExecutionProvider"]
        stream = _own_stream(chosen)
        try:
            # Where a device was named, ONNX Runtime must not try again on the CPU.
            named = {} if device == "auto" else {"enable_fallback": 0}
            self._session = onnxruntime.InferenceSession(path, options, providers=chosen, **named)
        except NoKernel as problem:
            names = ", ".join(one if isinstance(one, str) else one[0] for one in chosen)
            raise MissingExtra(
                f"{signature.name} cannot run here: this build of ONNX Runtime, on {names}, "
                f"lacks an operator in the bundle's precision ({str(problem).splitlines()[0]}); bf16 runs on TensorRT, "
                "or by engine 'torch'; on a CPU, ONNX Runtime runs fp32, fp16 and fp8"
            ) from problem
        except RuntimeError as problem:
            if gpu_number(device) is None or "invalid device" not in str(problem).lower():
                raise
            reason = str(problem).splitlines()[0]
            raise InvalidOption(f"device {device!r}: ONNX Runtime has no such GPU ({reason})") from problem
        require_provider(device, self._session.get_providers())
        self.device = torch.device("cpu")
        self._bound: BoundSession | None = None
        if _CUDA in self._session.get_providers():
            require_fast(signature.name, self._session, onnxruntime.__version__)
            if stream is not None:
                self.device = stream.device
                self._bound = BoundSession(self._session, signature, self.device, stream)

    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        if self._bound is not None:
            return self._bound(inputs)
        arrays = {name: tensor.contiguous().numpy(force=True) for name, tensor in inputs.items()}
        return dict(zip(self._outputs, map(torch.from_numpy, self._session.run(self._outputs, arrays)), strict=True))


def providers(device: str) -> list[str | tuple[str, dict[str, str]]]:
    """ONNX Runtime's execution providers, with their options, for one of `engines.DEVICES`.

    Its CUDA provider would else round float32 to TF32. Raises `MissingExtra` for a missing CUDA provider,
    `InvalidOption` for an unknown device, and for a GPU that is not there where PyTorch sees others.
    """
    import onnxruntime

    number = gpu_number(device)
    available = _CUDA in onnxruntime.get_available_providers()
    if device == "cpu" or (device == "auto" and not available):
        return ["CPUExecutionProvider"]
    if not available:
        raise MissingExtra(f"device {device!r} needs ONNX Runtime for GPUs: pip install 'consisid-runtime[gpu]'")
    if torch.cuda.is_available():  # PyTorch may be built for CPUs here, and then counts none
        require_gpu(device, torch.cuda.device_count())
    chosen = {} if number is None else {"device_id": str(number)}
    return [(_CUDA, {"use_tf32": "0", **chosen}), "CPUExecutionProvider"]


def _own_stream(chosen: list[Any]) -> torch.cuda.Stream | None:
    """Names a stream of PyTorch's to the CUDA provider, for the session alone; None where one of both has no CUDA."""
    if isinstance(chosen[0], str) or not torch.cuda.is_available():
        return None
    _, options = chosen[0]
    index = int(options.get("device_id", torch.cuda.current_device()))
    stream = torch.cuda.Stream(torch.device("cuda", index))  # type: ignore[no-untyped-call]
    options.update(device_id=str(index), user_compute_stream=str(stream.cuda_stream))
    return stream


def require_fast(module: str, session: InferenceSession, version: str) -> None:
    """Raises `MissingExtra` where a session on CUDA has attentions, matrix products or convolutions on the CPU.

    ONNX Runtime puts a node there that its CUDA provider has no kernel for, without a word. Before 1.24.1 it cannot be
    asked, and put every Attention there (its issue 28025).
    """
    upgrade = "pip install -U 'consisid-runtime[gpu]', or use device 'cpu'"
    if not hasattr(session, "get_provider_graph_assignment_info"):
        raise MissingExtra(f"ONNX Runtime {version} computes attentions on the CPU, GPU or not: {upgrade}")
    parts = session.get_provider_graph_assignment_info()
    on_cpu = {node.op_type for part in parts if part.ep_name == "CPUExecutionProvider" for node in part.get_nodes()}
    if heavy := sorted(on_cpu & _HEAVY):
        raise MissingExtra(f"{module}: ONNX Runtime {version} computes {', '.join(heavy)} on the CPU: {upgrade}")


def require_provider(device: str, loaded: Sequence[str]) -> None:
    """Raises `MissingExtra` where CUDA was named and a session has only these providers.

    ONNX Runtime goes on without a provider that fails to load.
    """
    if device not in ("cpu", "auto") and _CUDA not in loaded:
        raise MissingExtra(
            f"device {device!r}: ONNX Runtime could not load its CUDA provider, CUDA or cuDNN libraries are missing: "
            "install those that this onnxruntime-gpu was built for"
        )
