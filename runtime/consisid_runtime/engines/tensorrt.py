"""Runs a module's TensorRT engine on PyTorch's CUDA tensors, without copies, on the caller's stream.

Written against TensorRT 10.16 to 11.4 and TensorRT-RTX 1.7; not yet executed on a GPU.
"""

from __future__ import annotations

import logging
import mmap
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, cuda

from consisid_runtime.engines import check_device, require_gpu
from consisid_runtime.engines.tensorrt_library import load, log_of, reasons
from consisid_runtime.errors import BundleCorrupt, BundleVersion, InvalidOption, MissingExtra
from consisid_runtime.signatures import Signature

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle

logger = logging.getLogger(__name__)

_DTYPES = {
    "FLOAT": torch.float32,
    "HALF": torch.float16,
    "BF16": torch.bfloat16,
    "INT32": torch.int32,
    "INT64": torch.int64,
    "UINT8": torch.uint8,
    "BOOL": torch.bool,
}
_MIB = 2**20


def load_module(bundle: Bundle, name: str) -> TensorRTEngine:
    """One module of a bundle. Raises what `TensorRTEngine` raises."""
    record = bundle.manifest["modules"][name]
    # Within a request the step is called with the same shapes each time, which a CUDA graph needs.
    return TensorRTEngine(
        bundle.path / record["files"][0],
        bundle.signature(name),
        record["tensorrt"],
        device=bundle.device,
        capture=name == "dit_step",
    )


class TensorRTEngine:
    """One engine in device memory. Calls from several threads or streams are serialised.

    Args:
        path: the engine file.
        signature: of the module.
        record: what `consisid_export.tensorrt.build.build_engine` returned for this file.
        device: "cuda", "cuda:1", … or "auto" for the current GPU.
        capture: record the calls of one shape as a CUDA graph and replay it; inputs are then copied, outputs too.

    Attributes:
        device: where it runs.

    Raises `BundleVersion` for an engine of another GPU or TensorRT version, `MissingExtra` without CUDA or TensorRT,
    `InvalidOption` for a device other than a GPU of this machine, `BundleCorrupt` where TensorRT cannot load the file,
    `torch.OutOfMemoryError` before loading more than the device has free.
    """

    def __init__(
        self,
        path: Path,
        signature: Signature,
        record: Mapping[str, Any],
        *,
        device: str = "auto",
        capture: bool = False,
    ) -> None:
        self._name = signature.name
        self.device = _cuda_device(device)
        _, self._trt = load(record["library"])
        _require_same(signature.name, record, self._trt.__version__, self.device)
        self._profiles: list[Mapping[str, Any]] = record["profiles"]
        self._bindings: Mapping[str, str] = record.get("bindings", {})
        self._capture = capture
        self._captured: _Captured | None = None
        self._contexts: dict[int, Any] = {}
        self._lock = threading.Lock()
        _require_memory(signature.name, path, self.device)
        log = log_of(self._trt)
        with cuda.device(self.device):
            self._side = cuda.Stream()  # type: ignore[no-untyped-call]
            self._runtime = self._trt.Runtime(log)
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as plan:
                self._engine = self._runtime.deserialize_cuda_engine(plan)
        if self._engine is None:
            raise BundleCorrupt(
                f"{path}: TensorRT cannot load the engine; export it again on this machine\n{reasons(log)}"
            )
        self._inputs = {port.name: self._dtype(port.name) for port in signature.inputs}
        self._outputs = {port.name: self._dtype(port.name) for port in signature.outputs}
        memory = self.device_memory
        logger.info(
            "%s: %.1f MiB of weights, up to %.1f MiB while it runs",
            self._name,
            memory["weights"] / _MIB,
            memory["activations"] / _MIB,
        )

    @property
    def device_memory(self) -> dict[str, int]:
        """Bytes: "weights" are held while the engine lives, "activations" at most during a call."""
        return {
            "weights": self._engine.get_engine_stat(self._trt.EngineStat.TOTAL_WEIGHTS_SIZE),
            "activations": self._engine.device_memory_size_v2,
        }

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Raises `InvalidOption` for a shape outside of what the engine was built for."""
        bound = {name: inputs[name].to(self.device, dtype).contiguous() for name, dtype in self._inputs.items()}
        profile = self._profile_for(bound)
        with self._lock, cuda.device(self.device):
            caller = cuda.current_stream()
            # On the default stream TensorRT would wait for the whole device at every call.
            stream = caller if caller.cuda_stream else self._side
            stream.wait_stream(caller)
            if self._capture:
                outputs = self._replay(bound, profile, stream)
            else:
                outputs, _ = self._enqueue(bound, profile, stream)
            # The caller's stream reuses the memory of this call, and must not do so earlier.
            caller.wait_stream(stream)
            return outputs

    def _enqueue(
        self, bound: Mapping[str, Tensor], profile: int, stream: cuda.Stream
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Outputs and the workspace, which must outlive the call on `stream`."""
        context = self._context(stream)
        if context.active_optimization_profile != profile:
            self._require(context.set_optimization_profile_async(profile, stream.cuda_stream), "choose a profile")
        for name, tensor in bound.items():
            shape = tuple(tensor.shape)
            self._require(context.set_input_shape(self._binding(name), shape), f"take {name} {list(shape)}")
        self._require(not context.infer_shapes(), "infer its output shapes")
        outputs = {
            name: torch.empty(tuple(context.get_tensor_shape(self._binding(name))), dtype=dtype, device=self.device)
            for name, dtype in self._outputs.items()
        }
        for name, tensor in {**bound, **outputs}.items():
            self._require(context.set_tensor_address(self._binding(name), tensor.data_ptr()), f"bind {name}")
        # From PyTorch's allocator, so that modules which run one after the other share it.
        workspace = torch.empty(context.update_device_memory_size_for_shapes(), dtype=torch.uint8, device=self.device)
        context.set_device_memory(workspace.data_ptr(), workspace.numel())
        self._require(context.execute_async_v3(stream.cuda_stream), "run")
        return outputs, workspace

    def _replay(self, bound: Mapping[str, Tensor], profile: int, stream: cuda.Stream) -> dict[str, Tensor]:
        key = (stream.cuda_stream, tuple(tensor.shape for tensor in bound.values()))
        if self._captured is None or self._captured.key != key:
            self._captured = None  # frees its memory before the next graph allocates
            self._captured = self._record(key, bound, profile, stream)
        captured = self._captured
        outputs = {name: torch.empty_like(tensor) for name, tensor in captured.outputs.items()}
        with cuda.stream(stream):
            for name, tensor in bound.items():
                captured.inputs[name].copy_(tensor)
            captured.graph.replay()
            for name, tensor in captured.outputs.items():
                outputs[name].copy_(tensor)
        return outputs

    def _record(self, key: object, bound: Mapping[str, Tensor], profile: int, stream: cuda.Stream) -> _Captured:
        inputs = {name: torch.empty_like(tensor) for name, tensor in bound.items()}
        with cuda.stream(stream):
            for name, tensor in bound.items():
                inputs[name].copy_(tensor)
        # The first call of a shape initialises state, which is forbidden during capture.
        outputs, workspace = self._enqueue(inputs, profile, stream)
        stream.synchronize()
        context, graph = self._context(stream), cuda.CUDAGraph()
        with cuda.graph(graph, stream=stream, capture_error_mode="thread_local"):
            self._require(context.execute_async_v3(stream.cuda_stream), "be recorded as a CUDA graph")
        return _Captured(key, graph, inputs, outputs, workspace)

    def _context(self, stream: cuda.Stream) -> Any:
        """One execution context a stream: TensorRT forbids one on two streams at once."""
        handle = stream.cuda_stream
        if handle not in self._contexts:
            strategy = self._trt.ExecutionContextAllocationStrategy.USER_MANAGED
            self._contexts[handle] = self._engine.create_execution_context(strategy)
        return self._contexts[handle]

    def _profile_for(self, bound: Mapping[str, Tensor]) -> int:
        for index, profile in enumerate(self._profiles):
            if all(_within(tensor.shape, profile[name]) for name, tensor in bound.items()):
                return index
        for name, tensor in bound.items():
            if not any(_within(tensor.shape, profile[name]) for profile in self._profiles):
                accepted = " or ".join(_span(*profile[name]) for profile in self._profiles)
                raise InvalidOption(
                    f"{self._name}: {name} has shape {list(tensor.shape)}, this engine was built for {accepted}; "
                    "for other sizes export with dynamic ranges"
                )
        raise InvalidOption(f"{self._name}: the inputs' shapes belong to different profiles of this engine")

    def _binding(self, port: str) -> str:
        """The engine's own name for a port; only torch-tensorrt gives it another."""
        return self._bindings.get(port, port)

    def _dtype(self, port: str) -> torch.dtype:
        return _DTYPES[self._engine.get_tensor_dtype(self._binding(port)).name]

    def _require(self, succeeded: bool, what: str) -> None:
        if not succeeded:
            raise RuntimeError(f"{self._name}: TensorRT could not {what}\n{reasons(log_of(self._trt))}")


@dataclass(frozen=True, slots=True)
class _Captured:
    """A recorded call: the graph and all memory that it reads and writes."""

    key: object
    graph: cuda.CUDAGraph
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    workspace: Tensor


def _cuda_device(name: str) -> torch.device:
    check_device(name)
    if name == "auto":
        name = "cuda"
    if name == "cpu":
        raise InvalidOption(f"TensorRT engines run on NVIDIA GPUs only, got device {name!r}")
    if not cuda.is_available():
        raise MissingExtra(
            "a bundle of TensorRT engines needs an NVIDIA GPU and a CUDA build of PyTorch; not both are here"
        )
    require_gpu(name, cuda.device_count())
    device = torch.device(name)
    return device if device.index is not None else torch.device("cuda", cuda.current_device())


def _require_same(module: str, record: Mapping[str, Any], version: str, device: torch.device) -> None:
    """An engine runs only on the release of TensorRT and the GPU architectures that it was built for."""
    if version != record["version"]:
        raise BundleVersion(
            f"{module}: its engine was built with {record['library']} {record['version']}, here is {version}; export "
            f"the checkpoint again, or pip install '{record['library']}=={record['version']}'"
        )
    major, minor = cuda.get_device_capability(device)
    if f"sm_{major}{minor}" not in record["architectures"]:
        raise BundleVersion(
            f"{module}: its engine was built for {', '.join(record['architectures'])}, this GPU is sm_{major}{minor}; "
            "export the checkpoint again for this GPU"
        )


def _require_memory(module: str, path: Path, device: torch.device) -> None:
    size = path.stat().st_size
    free, _ = cuda.mem_get_info(device)
    if free < size:
        cuda.empty_cache()
        free, _ = cuda.mem_get_info(device)
    logger.info("%s: loading %.1f MiB, %.1f MiB of device memory are free", module, size / _MIB, free / _MIB)
    if free < size:
        raise torch.OutOfMemoryError(
            f"{module}: the engine takes {size / _MIB:.0f} MiB of device memory, {free / _MIB:.0f} MiB are free"
        )


def _within(shape: torch.Size, ranges: list[list[int]]) -> bool:
    least, _, greatest = ranges
    return len(shape) == len(least) and all(a <= n <= b for a, n, b in zip(least, shape, greatest, strict=True))


def _span(least: list[int], tuned: list[int], greatest: list[int]) -> str:
    return f"{least}" if least == greatest else f"{least} to {greatest}"
