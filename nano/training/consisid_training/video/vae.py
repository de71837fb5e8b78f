"""Trains the causal VAE: diffusers' `AutoencoderKLCogVideoX` with three levels, a quarter in height and width."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from consisid_training.data.clips import load
from consisid_training.loop.device import DEVICE, autocast
from consisid_training.loop.resumable import TrainingRun, weights

CONFIG: dict[str, Any] = {
    "act_fn": "silu",
    "block_out_channels": [16, 32, 64],
    "down_block_types": ["CogVideoXDownBlock3D"] * 3,
    "force_upcast": True,
    "in_channels": 3,
    "latent_channels": 16,
    "layers_per_block": 1,
    "norm_eps": 1e-06,
    "norm_num_groups": 8,
    "out_channels": 3,
    "sample_height": 64,
    "sample_width": 96,
    "scaling_factor": 1.0,
    "temporal_compression_ratio": 4,
    "up_block_types": ["CogVideoXUpBlock3D"] * 3,
    "use_post_quant_conv": False,
    "use_quant_conv": False,
}
SEED = 11
BATCH = 2
CROP = 48, 64
WHOLE = 0.8  # share of the steps after which whole frames are used
KL = 3e-4
PORTRAITS = 5  # every so many steps, a batch of portraits


def build(scaling_factor: float = 1.0) -> Any:
    from diffusers import AutoencoderKLCogVideoX

    make: Any = AutoencoderKLCogVideoX
    return make(**{**CONFIG, "scaling_factor": scaling_factor})


def trained(runs: Path) -> Any:
    """Return the VAE of `runs`/vae, with the decoder of `runs`/decoder if that exists; float32, evaluation mode."""
    vae = build()
    vae.load_state_dict(weights(runs / "vae"))
    if (runs / "decoder" / "state.pt").exists():
        vae.decoder.load_state_dict(weights(runs / "decoder"))
    return vae.eval().requires_grad_(False)


def train(data: Path, runs: Path, steps: int) -> None:
    """Train the VAE in `runs`/vae, the share `WHOLE` of the steps on crops of frames, the rest on whole ones."""
    torch.manual_seed(SEED)
    vae = build()
    run = TrainingRun(
        runs / "vae", vae, steps=steps, rate=2e-3, adamw_rate=2e-3, seed=SEED, average=0.998, device=DEVICE
    )
    clips, colours = load(data, "clips"), load(data, "colours")
    for step in run.loop():
        rng = run.rng(step)
        pixels = pictures(colours, rng) if step % PORTRAITS == 0 else _videos(clips, rng, step < WHOLE * steps)
        target = normalise(pixels)
        with autocast():
            posterior = vae.encode(target).latent_dist
            made = vae.decode(posterior.sample()).sample
        error, measured = loss(made.float(), target)
        mean, variance = posterior.mean.float(), posterior.logvar.float()
        divergence = 0.5 * (mean**2 + variance.exp() - 1 - variance).mean()
        run.update(error + KL * divergence, kl=divergence.item(), deviation=mean.std().item(), **measured)


def normalise(pixels: Any) -> Tensor:
    """uint8 [N, F, H, W, 3] → float32 [N, 3, F, H, W] in −1…1."""
    return torch.from_numpy(pixels).to(DEVICE).permute(0, 4, 1, 2, 3).float() / 127.5 - 1


def loss(made: Tensor, target: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the sum of absolute, squared and gradient errors, and the PSNR in dB for the log."""
    difference = made - target
    edges = sum((F.l1_loss(made.diff(dim=axis), target.diff(dim=axis)) for axis in (3, 4)), start=made.new_zeros(()))
    squared = difference.square().mean()
    kind = "portrait_db" if made.shape[2] == 1 else "video_db"
    measured = {kind: float(10 * np.log10(4 / max(squared.item(), 1e-9)))}
    return difference.abs().mean() + 0.5 * edges + 0.5 * squared, measured


def pictures(colours: Any, rng: np.random.Generator) -> Any:
    """Draw portraits as videos of one frame, uint8 [N, 1, H, W, 3]."""
    rows = rng.integers(len(colours), size=4 * BATCH)
    return np.stack([colours[row, int(rng.integers(2))] for row in rows])[:, None]


def _videos(clips: Any, rng: np.random.Generator, cropped: bool) -> Any:
    """Draw crops of nine frames, or whole clips of seventeen; half of the clips are reversed."""
    found = []
    frames, (height, width) = clips.shape[1], CROP
    for row in rng.integers(len(clips), size=2 * BATCH if cropped else BATCH):
        pixels = clips[row]
        if rng.random() < 0.5:
            pixels = pixels[::-1]
        if cropped:
            top, left = int(rng.integers(clips.shape[2] - height + 1)), int(rng.integers(clips.shape[3] - width + 1))
            start = int(rng.integers(frames - 8))
            pixels = pixels[start : start + 9, top : top + height, left : left + width]
        found.append(pixels)
    return np.stack(found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the training set")
    parser.add_argument("runs", type=Path, help="folder of the training runs")
    parser.add_argument("--steps", type=int, default=2200)
    arguments = parser.parse_args()
    train(arguments.data, arguments.runs, arguments.steps)
