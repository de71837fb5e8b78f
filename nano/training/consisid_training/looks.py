"""Trains a network that reads from a latent frame what its person looks like; the transformer's loss looks through it.

Squared error hardly notices a mole of two pixels, a person does. So what the transformer makes is also compared in what
this network reads from it, as perceptual losses do (Johnson et al. 2016). It judges nothing and is in no file.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_nano.world import ATTRIBUTES
from consisid_training.data import described, latent_scale, load
from consisid_training.device import DEVICE, half
from consisid_training.samples import UNSEEN
from consisid_training.stage import Stage, weights

SEED = 58
NOISE = 0.4
"""Deviation of the most noise that it learns to look through, in latents of deviation 1."""
_NARROW, _WIDE = 48, 96


class Looks(nn.Module):
    """Latents [N, 16, 16, 24] of deviation 1 → features of two levels, scores [N, …] of each attribute and numbers."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(16, _NARROW, 3, padding=1)
        self.narrow = _Residual(_NARROW)
        self.halving = nn.Conv2d(_NARROW, _WIDE, 3, stride=2, padding=1)
        self.wide = nn.Sequential(_Residual(_WIDE), _Residual(_WIDE))
        sizes = [*(len(names) for names in ATTRIBUTES.values()), numbers]
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


def trained(folder: Path) -> Looks:
    """As far as it has been trained in `folder`, evaluating."""
    found = weights(folder)
    network = Looks(found[f"heads.{len(ATTRIBUTES)}.bias"].numel())
    network.load_state_dict(found)
    return network.eval().requires_grad_(False)


def distance(looks: Looks, made: Tensor, wanted: Tensor) -> Tensor:
    """How unlike two sets of latents [N, 16, 16, 24] look, [N]: by features, place by place, and by what is said."""
    features, said = looks(made)
    with torch.no_grad():
        wanted_features, wanted_said = looks(wanted)
    total = made.new_zeros(len(made))
    for one, other in zip(features, wanted_features, strict=True):
        total = total + (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1).mean((1, 2))
    for one, other in zip(said[:-1], wanted_said[:-1], strict=True):
        divergence = F.kl_div(one.log_softmax(-1), other.log_softmax(-1), reduction="none", log_target=True)
        total = total + divergence.sum(1) / len(ATTRIBUTES)
    return cast(Tensor, total + (said[-1] - wanted_said[-1]).square().mean(1))


def train(encoded: Path, folder: Path, steps: int, *, people: int, first: int = 0, batch: int = 64) -> None:
    """`people` are encoded, and their numbers begin with `first`."""
    targets = load(encoded, "targets")
    scale = latent_scale(encoded)
    classes, shapes = (torch.from_numpy(found).to(DEVICE) for found in described(range(first, first + people)))
    torch.manual_seed(SEED)
    stage = Stage(
        folder, Looks(shapes.shape[1]), steps=steps, rate=3e-3, small_rate=2e-3, seed=SEED, average=0.98,
        small=("heads", "where"), device=DEVICE,
    )  # fmt: skip
    for step in stage.loop():
        rng = stage.rng(step)
        rows = rng.integers(people - UNSEEN, size=batch)
        latents = np.stack([targets[row, int(rng.integers(targets.shape[1]))] for row in rows]).astype(np.float32)
        noise = rng.standard_normal(latents.shape, np.float32) * rng.uniform(0, NOISE, (batch, 1, 1, 1))
        with half():
            _, said = stage.network(torch.from_numpy(latents * scale + noise.astype(np.float32)).to(DEVICE))
        loss = F.mse_loss(said[-1].float(), shapes[rows])
        measured = {"numbers": loss.item()}
        for name, score, target in zip(ATTRIBUTES, said, classes[rows].T, strict=False):
            loss = loss + F.cross_entropy(score.float(), target)
            measured[name] = (score.argmax(1) == target).float().mean().item()
        stage.update(loss, **measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoded", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--people", type=int, default=36_000, help="how many are encoded")
    parser.add_argument("--first", type=int, default=0, help="the number of the first of them")
    arguments = parser.parse_args()
    train(arguments.encoded, arguments.folder, arguments.steps, people=arguments.people, first=arguments.first)
