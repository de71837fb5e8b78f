"""Trains the latent reader, a network that predicts attributes and identity from a latent frame.

The transformer's loss compares its features and predictions, as a perceptual loss (Johnson et al. 2016), because
squared error is hardly affected by details such as a mole of two pixels. The network predicts attributes, expression,
speech and the embedding of the checkpoint's own ArcFace. It is neither a judge nor part of the checkpoint.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_nano.world import ATTRIBUTES, LABELS
from consisid_training.data.clips import appearance, latent_scale, load, scene_classes
from consisid_training.faces import recogniser
from consisid_training.loop.device import DEVICE, autocast
from consisid_training.loop.resumable import TrainingRun, weights
from consisid_training.video.samples import UNSEEN

SEED = 58
NOISE = 0.4
"""Greatest standard deviation of the noise added in training, for latents of standard deviation 1."""
ACTED = ("expression", "speech")
"""Labels of a scene that it predicts; a portrait's expression may differ from the prompt's.

In the first frame every mouth is closed, so speech cannot be predicted there.
"""
CLASSES = {**ATTRIBUTES, **{name: LABELS[name] for name in ACTED}}
_NARROW, _WIDE = 48, 96


class LatentReader(nn.Module):
    """Latents [N, 16, 16, 24] of standard deviation 1 → features of two levels, and predictions.

    Predictions are logits [N, …] of each of `CLASSES`, continuous attributes [N, n], and ArcFace's embedding [N, 512].
    """

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, _NARROW, 3, padding=1)
        self.narrow = _Residual(_NARROW)
        self.halving = nn.Conv2d(_NARROW, _WIDE, 3, stride=2, padding=1)
        self.wide = nn.Sequential(_Residual(_WIDE), _Residual(_WIDE))
        sizes = [*map(len, CLASSES.values()), numbers, recogniser.OUT]
        self.where = nn.Conv2d(_WIDE, len(sizes), 1)
        self.heads = nn.ModuleList(nn.Linear(_WIDE, size) for size in sizes)

    def forward(self, latents: Tensor) -> tuple[list[Tensor], list[Tensor]]:
        narrow = self.narrow(self.first(latents))
        wide = self.wide(self.halving(narrow))
        shares = self.where(wide).flatten(2).softmax(-1)
        pooled = shares @ wide.flatten(2).transpose(1, 2)
        return [narrow, wide], [head(pooled[:, i]) for i, head in enumerate(self.heads)]


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in range(2))
        self.norms = nn.ModuleList(nn.GroupNorm(8, width) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            y = convolution(F.silu(norm(y)))
        return x + y


def trained(folder: Path) -> LatentReader:
    """Return the network trained in `folder`, in evaluation mode."""
    found = weights(folder)
    network = LatentReader(found[f"heads.{len(CLASSES)}.bias"].numel())
    network.load_state_dict(found)
    return network.eval().requires_grad_(False)


def distance(reader: LatentReader, made: Tensor, target: Tensor) -> Tensor:
    """Return the distance [N] of latents [N, 16, 16, 24] from others: of features at each position, and of predictions.

    Only `made` gets a gradient.
    """
    features, predicted = reader(made)
    with torch.no_grad():
        target_features, target_predicted = reader(target)
    total = made.new_zeros(len(made))
    for one, other in zip(features, target_features, strict=True):
        total = total + (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1).mean((1, 2))
    *scores, numbers, who = predicted
    *target_scores, target_numbers, target_who = target_predicted
    for name, one, other in zip(CLASSES, scores, target_scores, strict=True):
        divergence = F.kl_div(one.log_softmax(-1), other.log_softmax(-1), reduction="none", log_target=True)
        total = total + divergence.sum(1) / len(ACTED if name in ACTED else ATTRIBUTES)
    return cast(Tensor, total + (numbers - target_numbers).square().mean(1) + 1 - F.cosine_similarity(who, target_who))


def train(encoded: Path, folder: Path, steps: int, *, people: int, first: int = 0, batch: int = 64) -> None:
    """Train on the `people` in `encoded`, whose seeds start at `first`."""
    targets = load(encoded, "targets")
    scale, numbers = latent_scale(encoded), range(first, first + people)
    attributes, shapes = appearance(numbers)
    classes = torch.from_numpy(np.hstack((attributes, scene_classes(numbers, ACTED)))).to(DEVICE)
    numbered = torch.from_numpy(shapes).to(DEVICE)
    faces = torch.from_numpy(np.asarray(load(encoded, "faces")[:people], np.float32)).sum(1).to(DEVICE)
    torch.manual_seed(SEED)
    run = TrainingRun(
        folder, LatentReader(shapes.shape[1]), steps=steps, rate=3e-3, adamw_rate=2e-3, seed=SEED, average=0.98,
        adamw=("heads", "where"), device=DEVICE,
    )  # fmt: skip
    for step in run.loop():
        rng = run.rng(step)
        rows = rng.integers(people - UNSEEN, size=batch)
        latents = np.stack([targets[row, int(rng.integers(targets.shape[1]))] for row in rows]).astype(np.float32)
        noise = rng.standard_normal(latents.shape, np.float32) * rng.uniform(0, NOISE, (batch, 1, 1, 1))
        with autocast():
            _, predicted = run.network(torch.from_numpy(latents * scale + noise.astype(np.float32)).to(DEVICE))
        *scores, continuous, who = predicted
        numbers_error = F.mse_loss(continuous.float(), numbered[rows])
        face_error = 1 - F.cosine_similarity(who.float(), faces[rows]).mean()
        loss, measured = numbers_error + face_error, {"numbers": numbers_error.item(), "face": face_error.item()}
        for name, score, target in zip(CLASSES, scores, classes[rows].T, strict=True):
            loss = loss + F.cross_entropy(score.float(), target)
            measured[name] = (score.argmax(1) == target).float().mean().item()
        run.update(loss, **measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoded", type=Path, help="folder of the encoded training set")
    parser.add_argument("folder", type=Path, help="of this training run")
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--people", type=int, default=36_000, help="number of encoded people")
    parser.add_argument("--first", type=int, default=0, help="seed of the first of them")
    arguments = parser.parse_args()
    train(arguments.encoded, arguments.folder, arguments.steps, people=arguments.people, first=arguments.first)
