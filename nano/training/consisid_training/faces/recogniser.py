"""Trains face recognition networks: the checkpoint's ArcFace and the two judges of identity."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from consisid_training.data.clips import load
from consisid_training.loop.device import autocast
from consisid_training.loop.resumable import TrainingRun, weights

EDGE = 112
OUT = 512


@dataclass(frozen=True, slots=True)
class Recipe:
    """What distinguishes one recogniser from another.

    Attributes:
        widths: channels after each halving. residual: adds a residual convolution at each size.
        views: columns of `crops` used in training. curriculum: weights hard negatives as CurricularFace does.
        margin: in radians, added to the angle between faces of a person. scale: factor of the cosines.
    """

    widths: tuple[int, ...]
    residual: bool
    views: tuple[int, ...]
    seed: int
    curriculum: bool = False
    margin: float = 0.2
    scale: float = 20.0


RECIPES = {
    # The judges are trained on frames too, so that they measure identity in videos and not sharpness.
    "judge_arcface": Recipe((24, 48, 72, 96), True, (0, 1, 2, 3), seed=21),
    "judge_curricular": Recipe((32, 48, 64, 128), False, (0, 1, 2, 3), seed=22, curriculum=True),
    "arcface": Recipe((24, 48, 64, 96), False, (0, 1), seed=23),
}


class Recogniser(nn.Module):
    """[N, 3, 112, 112] RGB as (level − 127.5) / 127.5 → [N, 512], not normalised."""

    def __init__(self, recipe: Recipe) -> None:
        super().__init__()
        self.halvings = nn.ModuleList(_conv(a, b, 2) for a, b in pairwise((3, *recipe.widths)))
        self.extra = nn.ModuleList(_conv(width, width, 1) for width in recipe.widths[1:] if recipe.residual)
        last, reach = recipe.widths[-1], EDGE // 2 ** len(recipe.widths)
        self.places = nn.Conv2d(last, 2 * last, reach, groups=last)
        self.out = nn.Linear(2 * last, OUT)

    def forward(self, faces: Tensor) -> Tensor:
        x = faces
        for level, halving in enumerate(self.halvings):
            x = F.relu(halving(x))
            if level and self.extra:
                x = F.relu(x + self.extra[level - 1](x))
        return cast(Tensor, self.out(F.relu(self.places(x)).flatten(1)))


def trained(folder: Path, name: str) -> Recogniser:
    """Return the network trained in `folder`, in evaluation mode."""
    network = Recogniser(RECIPES[name])
    network.load_state_dict(weights(folder))
    return network.eval().requires_grad_(False)


def train(data: Path, folder: Path, name: str, steps: int, people: int = 96) -> None:
    recipe = RECIPES[name]
    torch.manual_seed(recipe.seed)
    network = Recogniser(recipe)
    run = TrainingRun(folder, network, steps=steps, rate=2e-3, adamw_rate=2e-3, seed=recipe.seed, average=0.99)
    crops = load(data, "crops")
    for step in run.loop():
        rng = run.rng(step)
        rows = np.sort(rng.choice(len(crops), people, replace=False))
        pairs = [rng.choice(recipe.views, 2, replace=False) for _ in rows]
        first, second = (
            np.stack([crops[row, pair[side]] for row, pair in zip(rows, pairs, strict=True)]) for side in (0, 1)
        )
        faces = normalise(augment(np.concatenate([first, second]), rng))
        with autocast("cpu"):
            embedded = network(faces)
        loss, hits = _contrast(F.normalize(embedded.float(), dim=1), recipe)
        run.update(loss, hits=hits)


def normalise(faces: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, 3] → float32 [N, 3, H, W] in −1…1."""
    return torch.from_numpy(faces).permute(0, 3, 1, 2).float() / 127.5 - 1


def augment(faces: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.uint8]:
    """Augment with shifts, light, blur and noise, as from a video codec or network."""
    import cv2

    found = []
    for face in faces:
        matrix = np.array([[1, 0, 0], [0, 1, 0]], np.float64)
        angle, grow = rng.normal(0, 0.02), 1 + rng.normal(0, 0.02)
        turn = grow * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
        middle = np.array(face.shape[1::-1]) / 2
        matrix[:, :2], matrix[:, 2] = turn, middle - turn @ middle + rng.normal(0, 1.0, 2)
        moved: Any = cv2.warpAffine(face, matrix, face.shape[1::-1], borderMode=cv2.BORDER_REPLICATE)
        if rng.random() < 0.4:
            moved = cv2.GaussianBlur(moved, (0, 0), rng.uniform(0.5, 2.0))
        varied = moved.astype(np.float32) * rng.uniform(0.85, 1.15) + rng.normal(0, 4)
        varied += rng.normal(0, rng.uniform(0, 5), (1, 1, 3))
        found.append(np.clip(varied, 0, 255).astype(np.uint8))
    return np.stack(found)


def _contrast(embedded: Tensor, recipe: Recipe) -> tuple[Tensor, float]:
    """Return the contrastive loss with an angular margin (ArcFace, Deng et al. 2019), and the top-1 accuracy.

    The positive of each face is the other one of the same person. With `curriculum`, negatives nearer than that count
    more the nearer they are (CurricularFace, Huang et al. 2020, with t = 0.3). The accuracy is without margin.
    """
    count = len(embedded) // 2
    cosines = embedded @ embedded.T
    own = torch.arange(2 * count).roll(count)
    same = cosines[torch.arange(2 * count), own].clamp(-1 + 1e-6, 1 - 1e-6)
    positive = torch.cos(torch.acos(same) + recipe.margin)
    negatives = cosines.masked_fill(torch.eye(2 * count, dtype=torch.bool), -1.0)
    negatives = negatives.scatter(1, own[:, None], -1.0)
    hits = (same > negatives.amax(1)).float().mean().item()
    if recipe.curriculum:
        negatives = torch.where(negatives > positive[:, None], negatives * (0.3 + negatives), negatives)
    logits = recipe.scale * torch.cat([positive[:, None], negatives], dim=1)
    return F.cross_entropy(logits, torch.zeros(2 * count, dtype=torch.long)), hits


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name", choices=sorted(RECIPES))
    parser.add_argument("--steps", type=int, default=700)
    arguments = parser.parse_args()
    train(arguments.data, arguments.folder, arguments.name, arguments.steps)
