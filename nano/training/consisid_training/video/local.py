"""Trains the local facial extractor and the transformer's attentions to its tokens, before the transformer.

If trained with the transformer from the start the extractor collapses: the component that is common to all people grows
in its tokens until the component that distinguishes them is a few per cent after LayerNorm. Here queries for positions
and attributes attend to the tokens as the transformer does, and reconstruct the portrait's latents and its attributes.
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
from consisid_training.data.clips import appearance, load
from consisid_training.loop.device import DEVICE, autocast
from consisid_training.loop.resumable import TrainingRun, weights
from consisid_training.video.configs import TRANSFORMER
from consisid_training.video.samples import UNSEEN

SEED = 55
_PATCHES = (HEIGHT // 8) * (WIDTH // 8)
_VALUES = 2 * 2 * 16
"""Latent values of a patch."""
_READERS = TRANSFORMER["num_layers"] // TRANSFORMER["cross_attn_interval"]


class ExtractorInTraining(nn.Module):
    """The extractor, the transformer's attentions to its tokens, and layers for training only."""

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
        """Predict latents in patches [B, 96, 64], logits of each attribute, and continuous attributes.

        The inputs are [B, 576] and [B, 5, 577, 64].
        """
        tokens = self.extractor(identity, list(hidden.unbind(1)))
        x = self.queries.expand(len(tokens), -1, -1)
        for attention, mix in zip(self.attentions, self.mixing, strict=True):
            x = x + attention(tokens, x)
            x = x + mix(x)
        predicted = [head(x[:, _PATCHES + i]) for i, head in enumerate(self.heads)]
        return self.picture(x[:, :_PATCHES]), predicted


def extractor() -> Any:
    """Return an initialised `LocalFacialExtractor` of the checkpoint's sizes."""
    from diffusers.models.transformers.consisid_transformer_3d import LocalFacialExtractor

    names = {
        "id_dim": "id_dim", "vit_dim": "vit_dim", "depth": "depth", "dim_head": "dim_head", "heads": "num_heads",
        "num_id_token": "num_id_token", "num_queries": "num_querie", "output_dim": "output_dim", "ff_mult": "ff_mult",
        "num_scale": "num_scale",
    }  # fmt: skip
    make: Any = LocalFacialExtractor
    return make(**{ours: TRANSFORMER[f"LFE_{theirs}"] for ours, theirs in names.items()})


def trained_extractor(folder: Path) -> Any:
    """Return the extractor trained in `folder`, in evaluation mode."""
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
    """Return the trained tensors of extractor and attentions by the transformer's names."""
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
    classes, shapes = (torch.from_numpy(found).to(DEVICE) for found in appearance(range(len(identity))))
    known = len(identity) - UNSEEN
    torch.manual_seed(SEED)
    run = TrainingRun(
        folder, ExtractorInTraining(shapes.shape[1]), steps=steps, rate=2e-3, adamw_rate=1e-3, seed=SEED, average=0.99,
        adamw=("proj_out", "latents", "heads", "picture", "queries"), device=DEVICE,
    )  # fmt: skip
    for step in run.loop():
        rng = run.rng(step)
        rows, view = rng.integers(known, size=batch), int(rng.integers(2))

        def pick(array: Any, rows: Any = rows) -> Tensor:
            return torch.from_numpy(np.stack([array[row] for row in rows]).astype(np.float32)).to(DEVICE)

        with autocast():
            picture, predicted = run.network(pick(identity), pick(hidden))
        target = (pick(moments)[:, view, :16] - centre) / scale
        picture_error = F.mse_loss(picture.float(), F.unfold(target, 2, stride=2).transpose(1, 2))
        numbers_error = F.mse_loss(predicted[-1].float(), shapes[rows])
        loss, measured = picture_error + numbers_error, {}
        for name, score, row_classes in zip(ATTRIBUTES, predicted, classes[rows].T, strict=False):
            loss = loss + 0.3 * F.cross_entropy(score.float(), row_classes)
            measured[name] = (score.argmax(1) == row_classes).float().mean().item()
        run.update(loss, picture=picture_error.item(), numbers=numbers_error.item(), **measured)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("encoded", type=Path, help="folder of the encoded training set")
    parser.add_argument("folder", type=Path, help="of this training run")
    parser.add_argument("--steps", type=int, default=600)
    arguments = parser.parse_args()
    train(arguments.encoded, arguments.folder, arguments.steps)
