"""Trains the local facial extractor, before the transformer that reads it: what its tokens have to tell of a person.

Trained with the transformer from the start it collapses: what is the same for everybody grows in its tokens until the
share that tells people apart is a few per cent of what LayerNorm leaves of it. Here the tokens have to name the
attributes and to give the picture's latents back, both read from them as the transformer reads them: normalised.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_nano.world import ATTRIBUTES, HEIGHT, WIDTH, person
from consisid_training.configs import TRANSFORMER
from consisid_training.data import load
from consisid_training.device import DEVICE, half
from consisid_training.stage import Stage, weights

SEED = 55
_LATENTS = 16 * (HEIGHT // 4) * (WIDTH // 4)


class Reader(nn.Module):
    """The extractor, and for training only what reads its tokens."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        self.extractor = extractor()
        tokens = TRANSFORMER["LFE_num_querie"] * TRANSFORMER["LFE_output_dim"]
        self.hidden = nn.Linear(tokens, 256)
        self.heads = nn.Linear(256, sum(map(len, ATTRIBUTES.values())) + numbers)
        self.picture = nn.Linear(tokens, _LATENTS)

    def forward(self, identity: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Scores and numbers [B, n], and latents [B, 6144]; from [B, 576] and [B, 5, 577, 64]."""
        tokens = self.extractor(identity, list(hidden.unbind(1)))
        seen = F.layer_norm(tokens, tokens.shape[-1:]).flatten(1)
        return self.heads(F.gelu(self.hidden(seen))), self.picture(seen)


def extractor() -> Any:
    """`LocalFacialExtractor` with the checkpoint's sizes, untrained."""
    from diffusers.models.transformers.consisid_transformer_3d import LocalFacialExtractor

    names = {
        "id_dim": "id_dim", "vit_dim": "vit_dim", "depth": "depth", "dim_head": "dim_head", "heads": "num_heads",
        "num_id_token": "num_id_token", "num_queries": "num_querie", "output_dim": "output_dim", "ff_mult": "ff_mult",
        "num_scale": "num_scale",
    }  # fmt: skip
    make: Any = LocalFacialExtractor
    return make(**{ours: TRANSFORMER[f"LFE_{theirs}"] for ours, theirs in names.items()})


def trained(folder: Path) -> dict[str, Tensor]:
    """The extractor's tensors, as far as it has been trained in `folder`."""
    found = weights(folder)
    return {name.removeprefix("extractor."): t for name, t in found.items() if name.startswith("extractor.")}


def train(encoded: Path, folder: Path, steps: int, batch: int = 48) -> None:
    identity, hidden, moments = (load(encoded, name) for name in ("identity", "hidden", "moments"))
    some = np.asarray(moments[:500, :, :16], np.float32).reshape(1000, -1)
    centre, scale = torch.from_numpy(some.mean(0)).to(DEVICE), float(some.std())
    people = [person(row) for row in range(len(identity))]
    shapes = torch.from_numpy(np.stack([who.shape() for who in people]))
    shapes = (shapes - shapes.mean(0)) / (shapes.std(0) + 1e-6)
    classes = torch.tensor(
        [[names.index(who.attributes()[name]) for name, names in ATTRIBUTES.items()] for who in people]
    )
    shapes, classes = shapes.to(DEVICE), classes.to(DEVICE)
    stage = Stage(
        folder, Reader(shapes.shape[1]), steps=steps, rate=2e-3, small_rate=1e-3, seed=SEED, average=0.99,
        small=("proj_out", "latents", "heads", "picture"), device=DEVICE,
    )  # fmt: skip
    for step in stage.loop():
        rng = stage.rng(step)
        rows, view = rng.integers(len(identity), size=batch), int(rng.integers(2))

        def pick(array: Any, rows: Any = rows) -> Tensor:
            return torch.from_numpy(np.stack([array[row] for row in rows]).astype(np.float32)).to(DEVICE)

        with half():
            said, picture = stage.network(pick(identity), pick(hidden))
        wanted = (pick(moments)[:, view, :16].flatten(1) - centre) / scale
        picture_error = F.mse_loss(picture.float(), wanted)
        scores = said.float().split([*map(len, ATTRIBUTES.values()), shapes.shape[1]], dim=1)
        numbers_error = F.mse_loss(scores[-1], shapes[rows])
        loss, measured = picture_error + numbers_error, {}
        for name, score, target in zip(ATTRIBUTES, scores, classes[rows].T, strict=False):
            loss = loss + 0.3 * F.cross_entropy(score, target)
            measured[name] = (score.argmax(1) == target).float().mean().item()
        stage.update(loss, picture=picture_error.item(), numbers=numbers_error.item(), **measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoded", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    train(arguments.encoded, arguments.folder, arguments.steps)
