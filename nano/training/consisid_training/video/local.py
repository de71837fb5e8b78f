"""Trains the local facial extractor, before the transformer that reads it, with the attention that will read it.

Trained with the transformer from the start it collapses: what is the same for everybody grows in its tokens until the
share that tells people apart is a few per cent of what LayerNorm leaves of it. Here queries of places and of attributes
read the tokens as the transformer does and have to give the portrait's latents and the attributes back.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_nano.world import ATTRIBUTES, HEIGHT, WIDTH
from consisid_training.data.clips import described, load
from consisid_training.loop.device import DEVICE, half
from consisid_training.loop.resumable import Stage, weights
from consisid_training.video.configs import TRANSFORMER
from consisid_training.video.samples import UNSEEN

SEED = 55
_PATCHES = (HEIGHT // 8) * (WIDTH // 8)
_VALUES = 2 * 2 * 16
"""Latents of a patch."""
_READERS = TRANSFORMER["num_layers"] // TRANSFORMER["cross_attn_interval"]


class Reader(nn.Module):
    """The extractor, the transformer's attentions to its tokens, and for training only what reads through these."""

    def __init__(self, numbers: int) -> None:
        super().__init__()
        width = TRANSFORMER["num_attention_heads"] * TRANSFORMER["attention_head_dim"]
        self.extractor = extractor()
        self.attentions = nn.ModuleList(_attention(width) for _ in range(_READERS))
        self.mixing = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
            for _ in range(_READERS)
        )
        self.queries = nn.Parameter(torch.randn(_PATCHES + len(ATTRIBUTES) + 1, width))
        self.picture = nn.Linear(width, _VALUES)
        self.heads = nn.ModuleList(nn.Linear(width, size) for size in (*map(len, ATTRIBUTES.values()), numbers))

    def forward(self, identity: Tensor, hidden: Tensor) -> tuple[Tensor, list[Tensor]]:
        """Latents in patches [B, 96, 64], and scores of each attribute and numbers; from [B, 576], [B, 5, 577, 64]."""
        tokens = self.extractor(identity, list(hidden.unbind(1)))
        x = self.queries.expand(len(tokens), -1, -1)
        for attention, mix in zip(self.attentions, self.mixing, strict=True):
            x = x + attention(tokens, x)
            x = x + mix(x)
        said = [head(x[:, _PATCHES + i]) for i, head in enumerate(self.heads)]
        return self.picture(x[:, :_PATCHES]), said


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


def trained_extractor(folder: Path) -> Any:
    """As far as it has been trained in `folder`, evaluating."""
    network = extractor()
    prefix = "extractor."
    network.load_state_dict({n.removeprefix(prefix): t for n, t in weights(folder).items() if n.startswith(prefix)})
    return network.eval().requires_grad_(False)


def _attention(width: int) -> Any:
    from diffusers.models.transformers.consisid_transformer_3d import PerceiverCrossAttention

    make: Any = PerceiverCrossAttention
    return make(
        width, TRANSFORMER["cross_attn_dim_head"], TRANSFORMER["cross_attn_num_heads"], TRANSFORMER["LFE_output_dim"]
    )


def trained(folder: Path) -> dict[str, Tensor]:
    """The extractor's and the attentions' tensors by the transformer's names, as far as trained in `folder`."""
    names = {"extractor": "local_facial_extractor", "attentions": "perceiver_cross_attention"}
    found = {}
    for name, tensor in weights(folder).items():
        part, _, rest = name.partition(".")
        if part in names:
            found[f"{names[part]}.{rest}"] = tensor
    return found


def train(encoded: Path, folder: Path, steps: int, batch: int = 48) -> None:
    identity, hidden, moments = (load(encoded, name) for name in ("identity", "hidden", "moments"))
    some = np.asarray(moments[:500, :, :16], np.float32).reshape(-1, 16, *moments.shape[3:])
    centre, scale = torch.from_numpy(some.mean(0)).to(DEVICE), float(some.std())
    classes, shapes = (torch.from_numpy(found).to(DEVICE) for found in described(range(len(identity))))
    known = len(identity) - UNSEEN
    torch.manual_seed(SEED)
    stage = Stage(
        folder, Reader(shapes.shape[1]), steps=steps, rate=2e-3, small_rate=1e-3, seed=SEED, average=0.99,
        small=("proj_out", "latents", "heads", "picture", "queries"), device=DEVICE,
    )  # fmt: skip
    for step in stage.loop():
        rng = stage.rng(step)
        rows, view = rng.integers(known, size=batch), int(rng.integers(2))

        def pick(array: Any, rows: Any = rows) -> Tensor:
            return torch.from_numpy(np.stack([array[row] for row in rows]).astype(np.float32)).to(DEVICE)

        with half():
            picture, said = stage.network(pick(identity), pick(hidden))
        wanted = (pick(moments)[:, view, :16] - centre) / scale
        picture_error = F.mse_loss(picture.float(), F.unfold(wanted, 2, stride=2).transpose(1, 2))
        numbers_error = F.mse_loss(said[-1].float(), shapes[rows])
        loss, measured = picture_error + numbers_error, {}
        for name, score, target in zip(ATTRIBUTES, said, classes[rows].T, strict=False):
            loss = loss + 0.3 * F.cross_entropy(score.float(), target)
            measured[name] = (score.argmax(1) == target).float().mean().item()
        stage.update(loss, picture=picture_error.item(), numbers=numbers_error.item(), **measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoded", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    train(arguments.encoded, arguments.folder, arguments.steps)
