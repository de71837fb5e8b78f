"""Runs a module's PyTorch definition on the weights that the bundle carries."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from consisid_runtime.engines import Engine, check_device, require_gpu
from consisid_runtime.engines.compiler import require_compiler
from consisid_runtime.engines.full_float32 import full_float32
from consisid_runtime.errors import MissingExtra
from consisid_runtime.models import networks
from consisid_runtime.models.blueprint import dtype_of
from consisid_runtime.models.cpu_decoder import CpuDecoder
from consisid_runtime.models.dit import Step
from consisid_runtime.models.fused_step import FusedStep
from consisid_runtime.models.in_place_decoder import InPlaceDecoder
from consisid_runtime.models.vae import DecoderFirst, DecoderNext
from consisid_runtime.signatures import Signature

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle


DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
"""A module's precision in the manifest → the dtype of its weights."""


def load_module(bundle: Bundle, name: str) -> TorchEngine:
    """One module of a bundle. Raises what `TorchEngine` raises, and `require_compiler` where kernels are to run."""
    dtype = DTYPES[bundle.manifest["modules"][name]["precision"]]
    if name == "dit_step" and dtype != torch.float32 and torch_device(bundle.device).type == "cuda":
        require_compiler()
    return make_engine(name, BundleWeights(bundle), bundle.signature(name), dtype, bundle.device, bundle.loaded)


def make_engine(
    name: str,
    weights: networks.WeightReader,
    signature: Signature,
    dtype: torch.dtype,
    device: str,
    loaded: Mapping[str, Engine],
) -> TorchEngine:
    """One module; its weights are those of a loaded one of the same dtype where both have the same (`networks.SAME`).

    Raises what `TorchEngine` and `networks.load` raise.
    """
    other = loaded.get(networks.SAME.get(name, ""))
    if isinstance(other, TorchEngine) and dtype_of(other.network) == dtype:
        return TorchEngine(other.network, signature, device=device)
    return TorchEngine(networks.load(name, weights, dtype), signature, device=device)


class TorchEngine:
    """One network in PyTorch; results stay on its device. It runs on the thread pool of PyTorch, one for the process.

    On CUDA in fp16 and bf16 the denoiser's step runs this project's kernels; on a CPU in fp32 the decoder has a form of
    its own, elsewhere one that takes little memory: its caches have the weights' dtype, and those that it gets are
    overwritten. float32 is never rounded to TF32.

    Attributes:
        network: in the form that runs.
        device: where it runs.
        turn: entered for every call; a memory plan (`memory.residency`) brings the weights then.

    Raises `InvalidOption` for an unknown device, `MissingExtra` where CUDA was asked for and is not available.
    """

    def __init__(self, network: nn.Module, signature: Signature, *, device: str = "auto") -> None:
        self.device = torch_device(device)
        self.turn: Callable[[], AbstractContextManager[None]] = nullcontext
        self._outputs = [port.name for port in signature.outputs]
        self._inputs = [port.name for port in signature.inputs]
        self.network = _for_device(network.to(self.device), self.device)

    @torch.no_grad()
    def __call__(self, inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        # A CPU has no TF32, and the settings belong to the whole process.
        with self.turn(), nullcontext() if self.device.type == "cpu" else full_float32():
            results = self.network(*(inputs[name].to(self.device) for name in self._inputs))
        results = (results,) if isinstance(results, Tensor) else results
        return dict(zip(self._outputs, results, strict=True))


class BundleWeights:
    """Reads the weights of a bundle: one safetensors file a component, as the exporter wrote it."""

    def __init__(self, bundle: Bundle) -> None:
        self.config = bundle.config
        self._bundle = bundle

    def tensors(self, component: str) -> dict[str, Tensor]:
        return load_file(self._bundle.file(f"{component}.safetensors"))


def _for_device(network: nn.Module, device: torch.device) -> nn.Module:
    if isinstance(network, (DecoderFirst, DecoderNext)):
        own = device.type == "cpu" and dtype_of(network) == torch.float32
        return CpuDecoder(network) if own else InPlaceDecoder(network)
    if not isinstance(network, Step) or device.type != "cuda" or dtype_of(network) == torch.float32:
        return network
    try:
        from consisid_kernels import ops
    except ImportError as missing:
        raise MissingExtra("fp16 and bf16 on CUDA need Triton: pip install 'consisid-runtime[kernels]'") from missing
    return FusedStep(network, ops)


def torch_device(name: str) -> torch.device:
    """PyTorch's for one of `engines.DEVICES`.

    Raises `InvalidOption` for an unknown device or a GPU that is not there, `MissingExtra` where CUDA is not available.
    """
    check_device(name)
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name != "cpu":
        if not torch.cuda.is_available():
            raise MissingExtra(
                f"device {name!r} needs a CUDA build of PyTorch and an NVIDIA GPU; this environment has neither or one"
            )
        require_gpu(name, torch.cuda.device_count())
    return torch.device(name)
