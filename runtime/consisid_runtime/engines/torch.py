"""Runs a module's PyTorch definition on the weights that the bundle carries."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from types import ModuleType
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
from consisid_runtime.models.fused.decoder import ChannelsLastDecoder
from consisid_runtime.models.fused.step import FusedStep
from consisid_runtime.models.in_place_decoder import InPlaceDecoder
from consisid_runtime.models.vae import DecoderFirst, DecoderNext
from consisid_runtime.signatures import Signature

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle

logger = logging.getLogger(__name__)

DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "fp8": torch.bfloat16}
"""A module's precision in the manifest → the dtype of its weights, of those that are not quantised in fp8."""
FLOAT8_CAPABILITY = (8, 9)
"""The first GPUs that multiply E4M3 numbers."""
ON_KERNELS = ("dit_step", "vae_decoder_first", "vae_decoder_next")
"""Modules that run this project's kernels on CUDA in fp16 and bf16."""


def load_module(bundle: Bundle, name: str) -> TorchEngine:
    """One module of a bundle. Raises what `TorchEngine` raises, and `require_compiler` where kernels are to run."""
    precision = bundle.manifest["modules"][name]["precision"]
    dtype, on_cuda = DTYPES[precision], torch_device(bundle.device).type == "cuda"
    if precision == "fp8" and not on_cuda:
        dtype = torch.float32  # emulated, so that what is left of the error is E4M3's
    if name in ON_KERNELS and dtype != torch.float32 and on_cuda:
        require_compiler()
    weights, signature = BundleWeights(bundle), bundle.signature(name)
    return make_engine(name, weights, signature, dtype, bundle.device, bundle.loaded, float8=precision == "fp8")


def make_engine(
    name: str,
    weights: networks.WeightReader,
    signature: Signature,
    dtype: torch.dtype,
    device: str,
    loaded: Mapping[str, Engine],
    *,
    float8: bool = False,
) -> TorchEngine:
    """One module; its weights are those of a loaded one of the same dtype where both have the same (`networks.SAME`).

    Args:
        float8: as in `TorchEngine`.

    Raises what `TorchEngine` and `networks.load` raise.
    """
    other = loaded.get(networks.SAME.get(name, ""))
    if isinstance(other, TorchEngine) and dtype_of(other.network) == dtype:
        return TorchEngine(other.network, signature, device=device)
    return TorchEngine(networks.load(name, weights, dtype), signature, device=device, float8=float8)


class TorchEngine:
    """One network in PyTorch; results stay on its device. It runs on the thread pool of PyTorch, one for the process.

    On CUDA in fp16 and bf16 the denoiser's step and the decoder run this project's kernels; on a CPU in fp32 the
    decoder has a form of its own, elsewhere one that takes little memory. The decoder's caches have the weights' dtype,
    and those that it gets are overwritten. float32 is never rounded to TF32.

    Args:
        float8: the linear layers of the step's blocks are of E4M3 numbers: by the hardware on CUDA, elsewhere emulated
            in the specification's operators, slowly.

    Attributes:
        network: in the form that runs.
        device: where it runs.
        choices: what was decided here, for `info`: "attention" is the form of joint attention in the denoiser's step on
            CUDA, "attention_problem" why it is not the faster one; "linear_layers" that they are of E4M3 numbers.
        turn: entered for every call; a memory plan (`memory.residency`) brings the weights then.

    Raises `InvalidOption` for an unknown device, `MissingExtra` where CUDA was asked for and is not available, or the
    GPU does not multiply E4M3 numbers.
    """

    def __init__(self, network: nn.Module, signature: Signature, *, device: str = "auto", float8: bool = False) -> None:
        self.device = torch_device(device)
        self.turn: Callable[[], AbstractContextManager[None]] = nullcontext
        self._outputs = [port.name for port in signature.outputs]
        self._inputs = [port.name for port in signature.inputs]
        self._float8 = float8
        self.choices: dict[str, str] = {}
        self.network = self._for_device(network.to(self.device))

    def _for_device(self, network: nn.Module) -> nn.Module:
        if not isinstance(network, (DecoderFirst, DecoderNext, Step)):
            return network
        wide = dtype_of(network) == torch.float32
        kernels = None
        if self.device.type == "cuda" and not wide:
            kernels = _operators()
        if isinstance(network, Step):
            return self._fused(network, kernels) if kernels else self._emulated(network) if self._float8 else network
        if kernels:
            return ChannelsLastDecoder(network, kernels)
        return CpuDecoder(network) if wide and self.device.type == "cpu" else InPlaceDecoder(network)

    def _fused(self, network: Step, ops: ModuleType) -> nn.Module:
        """The step on kernels, with the form of attention that was chosen for this device."""
        if self._float8:
            _require_float8(self.device)
            self.choices["linear_layers"] = "E4M3"
        chosen = ops.joint_attention_form(self.device, dtype_of(network), network.config.attention_head_dim)
        self.choices["attention"] = chosen.name
        if chosen.problem:
            self.choices["attention_problem"] = chosen.problem
            _warn_of_attention(chosen.problem, self.device)
        return FusedStep(network, ops, chosen.compute, float8=self._float8)

    def _emulated(self, network: Step) -> nn.Module:
        """The step in the operators that specify the kernels."""
        from consisid_kernels import reference

        self.choices["linear_layers"] = "E4M3, emulated: slow"
        return FusedStep(network, reference, float8=True)

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


def _operators() -> ModuleType:
    """The kernels. Raises `MissingExtra` without Triton."""
    try:
        from consisid_kernels import ops
    except ImportError as missing:
        raise MissingExtra("fp16 and bf16 on CUDA need Triton: pip install 'consisid-runtime[kernels]'") from missing
    return ops


def _require_float8(device: torch.device) -> None:
    """Raises `MissingExtra` for a GPU that does not multiply E4M3 numbers."""
    capability = torch.cuda.get_device_capability(device)
    if capability < FLOAT8_CAPABILITY:
        raise MissingExtra(
            f"fp8 needs a GPU of compute capability 8.9 or more, {device} has {'.'.join(map(str, capability))}: export "
            "in bf16"
        )


@cache
def _warn_of_attention(problem: str, device: torch.device) -> None:
    """Logs a warning, once in a process."""
    logger.warning("%s: attention runs in its plain form; the one for this GPU failed its trial: %s", device, problem)


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
