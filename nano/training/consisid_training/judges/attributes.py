"""Trains two attribute classifiers as judges: of a person from a face, and of a scene from a clip."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path
from typing import TypeVar, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_nano.world import ATTRIBUTES, LABELS, person
from consisid_training.data.clips import load, scene_of
from consisid_training.faces.recogniser import augment, normalise
from consisid_training.loop.device import autocast
from consisid_training.loop.resumable import TrainingRun, weights

SEEDS = {"person": 31, "scene": 32}
Judge = TypeVar("Judge", bound=nn.Module)
_FRAMES = slice(0, None, 2)  # enough for a mouth that opens and closes once in eight frames


class PersonJudge(nn.Module):
    """[N, 3, 112, 112] RGB 0…1, ArcFace's crop → logits of each of `ATTRIBUTES`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk((3, 24, 48, 64))
        self.mix = nn.Conv2d(64, 16, 1)
        self.hidden = nn.Linear(16 * 14 * 14, 128)
        self.heads = _heads(ATTRIBUTES)

    def forward(self, faces: Tensor) -> tuple[Tensor, ...]:
        x = F.relu(self.hidden(F.relu(self.mix(self.trunk(faces * 2 - 1))).flatten(1)))
        return tuple(head(x) for head in self.heads.values())


class FaceFeatures(nn.Module):
    """[N, 3, 112, 112] RGB 0…1 → [N, 64], the person judge's trunk averaged over positions, for Fréchet distances."""

    def __init__(self, trunk: nn.Module) -> None:
        super().__init__()
        self.trunk = trunk

    def forward(self, faces: Tensor) -> Tensor:
        return cast(Tensor, self.trunk(faces * 2 - 1)).mean((2, 3))


class SceneJudge(nn.Module):
    """[N, 17, 3, 64, 96] RGB 0…1 → logits of each of `LABELS`."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk = _trunk((3, 24, 48, 64))
        self.mix = nn.Conv2d(64, 24, 1)
        self.hidden = nn.Linear(24 * 8 * 12, 128)
        self.time = nn.Conv1d(128, 128, 3, padding=1)
        self.whole = nn.Linear(9 * 128, 128)
        self.heads = _heads(LABELS)

    def forward(self, clips: Tensor) -> tuple[Tensor, ...]:
        frames = clips[:, _FRAMES] * 2 - 1
        x = F.relu(self.mix(self.trunk(frames.flatten(0, 1)))).flatten(1)
        x = torch.unflatten(F.relu(self.hidden(x)), 0, frames.shape[:2])
        x = x + F.relu(self.time(x.transpose(1, 2))).transpose(1, 2)
        x = F.relu(self.whole(x.flatten(1)))
        return tuple(head(x) for head in self.heads.values())


def train_person(data: Path, folder: Path, steps: int, batch: int = 96) -> None:
    torch.manual_seed(SEEDS["person"])
    network = PersonJudge()
    run = TrainingRun(folder, network, steps=steps, rate=2e-3, adamw_rate=2e-3, seed=SEEDS["person"], average=0.99)
    crops = load(data, "crops")
    for step in run.loop():
        rng = run.rng(step)
        rows = rng.integers(len(crops), size=batch)
        faces = augment(np.stack([crops[row, int(rng.integers(4))] for row in rows]), rng)
        labels = [person(int(row)).attributes() for row in rows]
        with autocast("cpu"):
            logits = network(normalise(faces) / 2 + 0.5)
        loss, hits = _classify(logits, labels, ATTRIBUTES)
        run.update(loss, **hits)


def train_scene(data: Path, folder: Path, steps: int, batch: int = 24) -> None:
    torch.manual_seed(SEEDS["scene"])
    network = SceneJudge()
    run = TrainingRun(folder, network, steps=steps, rate=2e-3, adamw_rate=2e-3, seed=SEEDS["scene"], average=0.99)
    clips = load(data, "clips")
    for step in run.loop():
        rng = run.rng(step)
        rows = rng.integers(len(clips), size=batch)
        pixels = torch.from_numpy(np.stack([clips[row] for row in rows])).permute(0, 1, 4, 2, 3).float() / 255
        with autocast("cpu"):
            logits = network(_augment(pixels, rng))
        loss, hits = _classify(logits, [scene_of(int(row)).labels() for row in rows], LABELS)
        run.update(loss, **hits)


def _augment(clips: Tensor, rng: np.random.Generator) -> Tensor:
    """Vary light and noise, and blur half of the clips, so that artefacts of a network are not taken for content."""
    count = len(clips)
    light = torch.from_numpy(rng.uniform(0.9, 1.1, (count, 1, 1, 1, 1)).astype(np.float32))
    noise = torch.from_numpy(rng.uniform(0, 0.02, (count, 1, 1, 1, 1)).astype(np.float32))
    blurred = F.avg_pool2d(clips.flatten(0, 1), 3, 1, 1, count_include_pad=False).view_as(clips)
    part = torch.from_numpy(rng.uniform(0, 1, (count, 1, 1, 1, 1)) * rng.integers(0, 2, (count, 1, 1, 1, 1)))
    mixed = torch.lerp(clips, blurred, part.float())
    return mixed * light + noise * torch.randn(clips.shape)


def _classify(
    logits: tuple[Tensor, ...], labels: list[dict[str, str]], classes: dict[str, tuple[str, ...]]
) -> tuple[Tensor, dict[str, float]]:
    loss = torch.zeros(())
    hits = {}
    for (name, names), scores in zip(classes.items(), logits, strict=True):
        target = torch.tensor([names.index(each[name]) for each in labels])
        loss = loss + F.cross_entropy(scores.float(), target)
        hits[name] = (scores.argmax(1) == target).float().mean().item()
    return loss, hits


def trained(folder: Path, network: Judge) -> Judge:
    network.load_state_dict(weights(folder))
    return network.eval().requires_grad_(False)


def _trunk(widths: tuple[int, ...]) -> nn.Sequential:
    """Return a network that halves the size once a width, with a residual convolution at each size."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Conv2d(inputs, outputs, 3, 2, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU()]
        layers.append(_Residual(outputs))
    return nn.Sequential(*layers)


class _Residual(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + cast(Tensor, self.norm(self.conv(x))))


def _heads(classes: dict[str, tuple[str, ...]]) -> nn.ModuleDict:
    return nn.ModuleDict({name: nn.Linear(128, len(names)) for name, names in classes.items()})


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("name", choices=("person", "scene"))
    parser.add_argument("--steps", type=int, default=900)
    arguments = parser.parse_args()
    (train_person if arguments.name == "person" else train_scene)(arguments.data, arguments.folder, arguments.steps)
