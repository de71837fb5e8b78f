"""The VAE's decoder with kernels: an error of at most twice that of PyTorch at the same precision."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.verify.module import relative_error
from consisid_kernels import ops
from consisid_runtime.models import networks
from consisid_runtime.models.fused.decoder import ChannelsLastDecoder


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_three_chunks_with_kernels(untrained: Path, device: str, dtype: torch.dtype) -> None:
    """The first, the next one, and one that gets caches in memory that was used before."""
    checkpoint = Checkpoint.open(untrained)
    torch.manual_seed(0)
    latents = torch.randn(1, checkpoint.config.vae.latent_channels, 7, 2, 3, device=device)

    def load(dtype: torch.dtype) -> Any:
        return networks.load("vae_decoder_next", checkpoint, dtype).to(device)

    def frames(network: nn.Module) -> Tensor:
        made, caches = [], ()
        for chunk in latents.split([3, 2, 2], 2):
            video, *caches = network(chunk, *caches)
            made.append(video)
        return torch.cat(made, 2).cpu()

    with torch.no_grad():
        exact, own = frames(load(torch.float64)), frames(load(dtype))
        found = frames(ChannelsLastDecoder(load(dtype), ops))
    assert 0 < relative_error(found, exact) <= 2 * relative_error(own, exact)
