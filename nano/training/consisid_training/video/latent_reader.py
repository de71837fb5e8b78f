"""Trains a network that reads from a latent frame who is there, and how; the transformer's loss looks through it.

Squared error hardly notices a mole of two pixels, a person does. So what the transformer makes is also compared in what
this network reads from it, as perceptual losses do (Johnson et al. 2016). What it learns to read is what people look
like, their expression, whether they speak, and the embedding that the checkpoint's own ArcFace has of them. It judges
nothing and is in no file.
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
from consisid_training.data.clips import acted, described, latent_scale, load
from consisid_training.faces import recogniser
from consisid_training.loop.device import DEVICE, half
from consisid_training.loop.resumable import Stage, weights
from consisid_training.video.samples import UNSEEN

SEED = 58
NOISE = 0.4
"""Deviation of the most noise that it learns to look through, in latents of deviation 1."""
ACTED = ("expression", "speech")
"""Which of a scene's labels it reads: with a portrait comes an expression too, which the prompt may not want.
In the first frame nobody has said anything yet: there, speech is a guess."""
CLASSES = {**ATTRIBUTES, **{name: LABELS[name] for name in ACTED}}
_NARROW, _WIDE = 48, 96


class Looks(nn.Module):
    """Latents [N, 16, 16, 24] of deviation 1 → features of two levels, and what is said of each: scores [N, …] of
    `CLASSES`, shape numbers [N, n], ArcFace's embedding [N, 512]."""

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


def trained(folder: Path) -> Looks:
    """As far as it has been trained in `folder`, evaluating."""
    found = weights(folder)
    network = Looks(found[f"heads.{len(CLASSES)}.bias"].numel())
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
    *scores, numbers, who = said
    *wanted_scores, wanted_numbers, wanted_who = wanted_said
    for name, one, other in zip(CLASSES, scores, wanted_scores, strict=True):
        divergence = F.kl_div(one.log_softmax(-1), other.log_softmax(-1), reduction="none", log_target=True)
        total = total + divergence.sum(1) / len(ACTED if name in ACTED else ATTRIBUTES)
    return cast(Tensor, total + (numbers - wanted_numbers).square().mean(1) + 1 - F.cosine_similarity(who, wanted_who))


def train(encoded: Path, folder: Path, steps: int, *, people: int, first: int = 0, batch: int = 64) -> None:
    """`people` are encoded, and their numbers begin with `first`."""
    targets = load(encoded, "targets")
    scale, numbers = latent_scale(encoded), range(first, first + people)
    attributes, shapes = described(numbers)
    classes = torch.from_numpy(np.hstack((attributes, acted(numbers, ACTED)))).to(DEVICE)
    numbered = torch.from_numpy(shapes).to(DEVICE)
    faces = torch.from_numpy(np.asarray(load(encoded, "faces")[:people], np.float32)).sum(1).to(DEVICE)
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
        *scores, guessed, who = said
        numbers_off = F.mse_loss(guessed.float(), numbered[rows])
        face_off = 1 - F.cosine_similarity(who.float(), faces[rows]).mean()
        loss, measured = numbers_off + face_off, {"numbers": numbers_off.item(), "face": face_off.item()}
        for name, score, target in zip(CLASSES, scores, classes[rows].T, strict=True):
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
