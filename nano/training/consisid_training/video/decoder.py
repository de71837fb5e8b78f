"""Trains the VAE's decoder alone, with extra weight on faces.

The encoder, and so the latents that the transformer learns, stay unchanged.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from consisid_runtime.stages.face.geometry import arcface_transform
from consisid_training.data.clips import load
from consisid_training.faces import recogniser
from consisid_training.loop.device import DEVICE, autocast
from consisid_training.loop.resumable import TrainingRun
from consisid_training.video import vae

SEED = 12
FACES = 3
"""Frames of each clip whose faces enter the loss."""
FACE_WEIGHT, IDENTITY_WEIGHT = 1.0, 0.1
"""Weights of the error over faces, and of the distance between ArcFace embeddings."""


def train(data: Path, runs: Path, steps: int) -> None:
    """Train the decoder; `runs` holds `vae` and `arcface`."""
    network = vae.trained(runs).to(DEVICE)
    network.decoder.requires_grad_(True).train()
    critic = recogniser.trained(runs / "arcface", "arcface").to(DEVICE)
    run = TrainingRun(
        runs / "decoder", network.decoder, steps=steps, rate=1e-3, adamw_rate=1e-3, seed=SEED, average=0.99,
        decay=0.7, device=DEVICE,
    )  # fmt: skip
    clips, points, colours = load(data, "clips"), load(data, "points"), load(data, "colours")
    for step in run.loop():
        rng, portraits = run.rng(step), step % 10 == 0
        rows = rng.integers(len(clips), size=vae.BATCH)
        target = vae.normalise(vae.pictures(colours, rng) if portraits else np.stack([clips[row] for row in rows]))
        with autocast():
            with torch.no_grad():
                latents = network.encode(target).latent_dist.sample()
            made = network.decode(latents).sample.float()
        loss, measured = vae.loss(made, target)
        if not portraits:
            frames = rng.integers(clips.shape[1], size=(len(rows), FACES))
            seen = np.stack([points[row][found] for row, found in zip(rows, frames, strict=True)])
            near, truth = (faces(frames_of(video, frames), seen.reshape(-1, 5, 2)) for video in (made, target))
            cosine = F.cosine_similarity(critic(near), critic(truth)).mean()
            face = (near - truth).abs().mean()
            loss = loss + FACE_WEIGHT * face + IDENTITY_WEIGHT * (1 - cosine)
            measured |= {"face": face.item(), "cosine": cosine.item()}
        run.update(loss, **measured)


def faces(pictures: Tensor, points: NDArray[Any]) -> Tensor:
    """Return ArcFace's crops [N, 3, 112, 112] of pictures [N, 3, H, W] with landmarks [N, 5, 2], differentiably.

    Black outside the picture.
    """
    height, width = pictures.shape[2:]
    scale, grids = 2 / np.array([[width - 1], [height - 1]]), []
    ends = (recogniser.EDGE - 1) / 2
    for found in points:
        there = np.linalg.inv(np.vstack((arcface_transform(found, recogniser.EDGE), [0, 0, 1])))[:2]
        centred = np.hstack((there[:, :2] * ends, there @ [[ends], [ends], [1]]))  # maps −1…1 to pixels
        grids.append(scale * centred - [[0, 0, 1], [0, 0, 1]])
    size = [len(pictures), 3, recogniser.EDGE, recogniser.EDGE]
    grid = F.affine_grid(torch.from_numpy(np.stack(grids)).to(pictures), size, align_corners=True)
    return F.grid_sample(pictures + 1, grid, align_corners=True) - 1


def frames_of(videos: Tensor, frames: NDArray[Any]) -> Tensor:
    """Select frames [B, n] of videos [B, 3, F, H, W]: [B · n, 3, H, W]."""
    return torch.cat([video[:, found].transpose(0, 1) for video, found in zip(videos, frames, strict=True)])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder of the training set")
    parser.add_argument("runs", type=Path, help="folder of the training runs")
    parser.add_argument("--steps", type=int, default=1000)
    arguments = parser.parse_args()
    train(arguments.data, arguments.runs, arguments.steps)
