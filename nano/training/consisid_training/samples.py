"""Draws batches for the transformer's training from what `latents` encoded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consisid_nano.world import HEIGHT, WIDTH, prompt
from consisid_training.configs import LENGTH
from consisid_training.data import load, scene_of

DROP_PROMPT, DROP_IMAGE, DROP_FACE = 0.1, 0.35, 0.12
FRAMES = 5
"""Latent frames of a whole clip."""
UNSEEN = 200
"""People, the last of the set, who are never trained on: what the log says of them shows what was learned by heart."""


class Samples:
    """Batches of the first so many `people`.

    Attributes:
        seen, unseen: the people that are trained on, and those that are not.
    """

    def __init__(self, data: Path, encoded: Path, tokenizer: Path, people: int) -> None:
        import sentencepiece

        self.seen, self.unseen = np.arange(people - UNSEEN), np.arange(people - UNSEEN, people)
        self.arrays = {name: load(encoded, name) for name in ("targets", "moments", "identity", "hidden")}
        self.points = load(data, "points")
        self.scale = 1 / float(np.asarray(self.arrays["targets"][:500], np.float32).std())
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "spiece.model"))

    @property
    def vocabulary(self) -> int:
        return int(self._pieces.vocab_size()) + 100

    def ids(self, texts: list[str]) -> Tensor:
        rows = [[*self._pieces.encode(text), 1][:LENGTH] for text in texts]
        return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])

    def draw(
        self, rows: NDArray[Any], frames: int, rng: np.random.Generator, *, drop: bool = True
    ) -> dict[str, Tensor]:
        """Targets and image latents [B, frames, 16, 16, 24], ids [B, 32], identity [B, 576], hidden [B, 5, 577, 64],
        local [B] (whether face tokens are read) and mask [B, frames, 1, 16, 24] (where faces are) of people.

        With `drop`, conditions are left out now and then.
        """
        size = len(rows)

        def pick(name: str) -> Tensor:
            return torch.from_numpy(np.stack([self.arrays[name][row] for row in rows]).astype(np.float32))

        def keep(share: float) -> Tensor:
            return torch.from_numpy((rng.random(size) >= share * drop).astype(np.float32))

        mean, logvar = pick("moments")[np.arange(size), rng.integers(2, size=size)].chunk(2, dim=1)
        image = mean + (0.5 * logvar).exp() * torch.from_numpy(rng.standard_normal(mean.shape, np.float32))
        targets = pick("targets")[:, :frames] * self.scale
        padded = torch.zeros_like(targets)
        padded[:, 0] = image * self.scale * keep(DROP_IMAGE)[:, None, None, None]
        said = keep(DROP_PROMPT)
        texts = [prompt(scene_of(int(row)), int(rng.integers(2**31))) if said[i] else "" for i, row in enumerate(rows)]
        return {
            "targets": targets, "image": padded, "ids": self.ids(texts), "identity": pick("identity"),
            "hidden": pick("hidden"), "local": keep(DROP_FACE), "mask": self._faces(rows, frames),
        }  # fmt: skip

    def _faces(self, rows: Any, frames: int) -> Tensor:
        """Where faces are, per latent: float32 [B, frames, 1, 16, 24]."""
        mask = torch.zeros(len(rows), frames, 1, HEIGHT // 4, WIDTH // 4)
        for i, row in enumerate(rows):
            for frame in range(frames):
                seen = self.points[row][max(0, 4 * frame - 3) : 4 * frame + 1].reshape(-1, 2)
                (left, top), (right, bottom) = seen.min(0), seen.max(0)
                apart = 0.6 * (right - left)
                box = [
                    max(0, round(edge / 4)) for edge in (left - apart, top - 1.4 * apart, right + apart, bottom + apart)
                ]
                mask[i, frame, 0, box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
        return mask
