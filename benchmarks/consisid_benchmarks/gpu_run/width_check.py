"""Compares the denoiser's step with PyTorch's own form of it at full width and length, where no other test can."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from consisid_benchmarks.fake_gpu.full_size import CONFIGS
from consisid_benchmarks.gpu_run.full_size import bundle
from consisid_export.onnx.samples import sample_inputs
from consisid_export.verify.module import OWN_ERROR_FACTOR, relative_error
from consisid_measurement.harness import Mismatch
from consisid_runtime.engines.torch import TorchEngine
from consisid_runtime.models import networks
from consisid_runtime.options import Options
from consisid_runtime.plan import plan

LAYERS = 2
"""Of the transformer's 42: float32, which the others are compared with, is fifteen times slower."""

Configs = Mapping[str, Mapping[str, Any]]


def shallow(configs: Configs) -> Configs:
    """The same with `LAYERS` layers in the transformer."""
    return {**configs, "transformer": {**configs["transformer"], "num_layers": LAYERS}}


def require_close(error: float, own: float, reference: str) -> None:
    """Raises `Mismatch` where the error of the engine's step is more than twice that of `reference`, or not finite.

    Args:
        error, own: relative L2 of the engine and of `reference` in bf16, both compared with `reference` in float32.
    """
    if not error <= OWN_ERROR_FACTOR * own:
        raise Mismatch(
            f"a step of {LAYERS} layers is {error:.1e} (relative L2) from {reference} in float32, {reference} in bf16 "
            f"{own:.1e}; twice that is allowed"
        )


def require_same_step(device: str, configs: Configs = CONFIGS) -> tuple[float, float]:
    """The relative L2 error of the engine's step in bf16 and that of PyTorch's own form, both from float32.

    Raises `Mismatch` where the engine's is more than twice PyTorch's, or not finite.
    """
    found = bundle(device, shallow(configs))
    request = plan(Options(), found.config.geometry)
    spatial = found.config.vae.spatial
    sizes = {
        "branches": 2,
        "frames": request.latent_frames,
        "rows": request.rows,
        "columns": request.columns,
        "latent_height": request.height // spatial,
        "latent_width": request.width // spatial,
        "steps": 1,
    }
    signature = found.signature("dit_step")
    given = {name: tensor.to(device) for name, tensor in sample_inputs(signature, sizes).items()}

    def velocity(dtype: torch.dtype, *, own: bool) -> torch.Tensor:
        network = networks.load("dit_step", found, dtype)
        if own:
            with torch.no_grad():
                return network(*given.values())[0].cpu()  # type: ignore[no-any-return]
        return TorchEngine(network, signature, device=device)(given)["velocity"].cpu()

    wanted = velocity(torch.float32, own=False)
    own = relative_error(velocity(torch.bfloat16, own=True), wanted)
    error = relative_error(velocity(torch.bfloat16, own=False), wanted)
    require_close(error, own, "PyTorch's own form")
    return error, own
