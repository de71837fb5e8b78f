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
from consisid_runtime.options import Options, plan

LAYERS = 2
"""Of the transformer's 42: float32, which the others are compared with, is fifteen times slower."""


def require_same_step(device: str, configs: Mapping[str, Mapping[str, Any]] = CONFIGS) -> tuple[float, float]:
    """The relative L2 error of the engine's step in bf16 and that of PyTorch's own form, both from float32.

    Raises `Mismatch` where the engine's is more than twice PyTorch's, or not finite.
    """
    found = bundle(device, {**configs, "transformer": {**configs["transformer"], "num_layers": LAYERS}})
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
    limit = OWN_ERROR_FACTOR * (own := relative_error(velocity(torch.bfloat16, own=True), wanted))
    error = relative_error(velocity(torch.bfloat16, own=False), wanted)
    if not error <= limit:
        raise Mismatch(
            f"a step of {LAYERS} layers at full width differs from float32 by {error:.1e} (relative L2); PyTorch's own "
            f"form in bf16 differs by {own:.1e}, and twice that is allowed"
        )
    return error, own
