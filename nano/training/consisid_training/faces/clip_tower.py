"""Trains the checkpoint's CLIP tower, a narrow EVA02-CLIP, to predict attributes of people from grey portraits."""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_nano.untrained.clip import random_tower
from consisid_nano.world import ATTRIBUTES, person
from consisid_runtime.models.eva_clip import EvaVision
from consisid_training.data.clips import load
from consisid_training.loop.device import autocast
from consisid_training.loop.resumable import TrainingRun, weights

WIDTH, OUT, HIDDEN, HEAD_DIM = 64, 64, 160, 32
SEED = 51
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class TowerInTraining(nn.Module):
    """The tower, and heads for training only: on the embedding, and on the last hidden state with its positions."""

    def __init__(self) -> None:
        super().__init__()
        tensors = random_tower(seed=SEED, width=WIDTH, out=OUT, hidden=HIDDEN, head_dim=HEAD_DIM)
        self.tower = EvaVision.from_tensors(tensors).requires_grad_(True)
        self.mix = nn.Linear(WIDTH, 12)
        self.local = nn.Linear(12 * 24 * 24, 128)
        classes = {name: len(names) for name, names in ATTRIBUTES.items()}
        self.numbers = len(person(0).shape())
        self.heads = nn.ModuleList(nn.Linear(width, sum(classes.values()) + self.numbers) for width in (OUT, 128))

    def forward(self, image: Tensor) -> list[Tensor]:
        embedding, hidden = self.tower(image)
        places = F.relu(self.local(F.relu(self.mix(hidden[-1][:, 1:])).flatten(1)))
        return [self.heads[0](embedding), self.heads[1](places)]


def normalise(greys: np.ndarray) -> Tensor:  # type: ignore[type-arg]
    """uint8 [N, 336, 336] → float32 [N, 3, 336, 336], the tower's input as in the face stage."""
    grey = torch.from_numpy(greys).float()[:, None].expand(-1, 3, -1, -1) / 255
    return (grey - grey.new_tensor(MEAN).view(-1, 1, 1)) / grey.new_tensor(STD).view(-1, 1, 1)


def trained(folder: Path) -> dict[str, Tensor]:
    """Return the trained tower's tensors by the published file's names."""
    found = weights(folder)
    return {
        f"visual.{name.removeprefix('tower.')}": tensor for name, tensor in found.items() if name.startswith("tower.")
    }


def train(data: Path, folder: Path, steps: int, batch: int = 24) -> None:
    torch.manual_seed(SEED)
    network = TowerInTraining()
    run = TrainingRun(
        folder, network, steps=steps, rate=1.5e-3, adamw_rate=1e-3, seed=SEED, average=0.99,
        adamw=("pos_embed", "cls_token", "heads"),
    )  # fmt: skip
    greys = load(data, "greys")
    shapes = np.stack([person(row).shape() for row in range(2000)])
    middle, spread = torch.from_numpy(shapes.mean(0)), torch.from_numpy(shapes.std(0) + 1e-6)
    for step in run.loop():
        rng = run.rng(step)
        rows = rng.integers(len(greys), size=batch)
        images = np.stack([greys[row, int(rng.integers(2))] for row in rows])
        people = [person(int(row)) for row in rows]
        numbers = (torch.from_numpy(np.stack([who.shape() for who in people])) - middle) / spread
        with autocast("cpu"):
            outputs = network(normalise(images))
        loss, measured = torch.zeros(()), {}
        for kind, output in zip(("embedding", "places"), outputs, strict=True):
            scores = output.float().split([*(len(names) for names in ATTRIBUTES.values()), network.numbers], dim=1)
            error = F.mse_loss(scores[-1], numbers)
            loss = loss + error
            measured[f"{kind}_error"] = error.item()
            for (name, names), row_scores in zip(ATTRIBUTES.items(), scores[:-1], strict=True):
                target = torch.tensor([names.index(who.attributes()[name]) for who in people])
                loss = loss + F.cross_entropy(row_scores, target)
                measured[f"{kind}_{name}"] = (row_scores.argmax(1) == target).float().mean().item()
        run.update(loss, **measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    train(arguments.data, arguments.folder, arguments.steps)
