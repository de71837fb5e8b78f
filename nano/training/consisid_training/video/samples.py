"""Draws batches for the transformer's training from the arrays of `latents`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from consisid_nano.world import HEIGHT, WIDTH, prompt
from consisid_training.data.clips import latent_scale, load, scene_of
from consisid_training.video.configs import LENGTH

DROP_PROMPT, DROP_IMAGE, DROP_FACE = 0.1, 0.25, 0.12
FRAMES = 5
"""Latent frames of a clip."""
WHOLE = np.arange(FRAMES)
UNSEEN = 200
"""The last people of the set, excluded from training; their error in the log shows overfitting."""


class Samples:
    """Batches of the first `people` rows, whose people's seeds start at `first`.

    Attributes:
        seen, unseen: rows of people who are trained on, and of those who are not.
    """

    def __init__(self, data: Path, encoded: Path, tokenizer: Path, people: int, first: int = 0) -> None:
        import sentencepiece

        self._first = first
        self.seen, self.unseen = np.arange(people - UNSEEN), np.arange(people - UNSEEN, people)
        self.arrays = {name: load(encoded, name) for name in ("targets", "moments", "tokens")}
        self.points = load(data, "points")
        self.scale = latent_scale(encoded)
        self._pieces = sentencepiece.SentencePieceProcessor(model_file=str(tokenizer / "spiece.model"))

    @property
    def vocabulary(self) -> int:
        return int(self._pieces.vocab_size()) + 100

    def ids(self, texts: list[str]) -> Tensor:
        rows = [[*self._pieces.encode(text), 1][:LENGTH] for text in texts]
        return torch.tensor([row + [0] * (LENGTH - len(row)) for row in rows])

    def draw(
        self, rows: NDArray[Any], frames: NDArray[Any], rng: np.random.Generator, *, drop: bool = True
    ) -> dict[str, Tensor]:
        """Draw a batch of people in `rows` and F latent `frames`, of which the first must be 0.

        Args:
            drop: whether to omit conditions at random.

        Returns:
            targets, image: latents [B, F, 16, 16, 24]. ids: [B, 32]. tokens: [B, 16, 128].
            local: [B], 1 to use the tokens, 0 to drop them. mask: [B, F, 1, 16, 24], 1 on faces. frames: [F].
        """
        size = len(rows)

        def pick(name: str) -> Tensor:
            return torch.from_numpy(np.stack([self.arrays[name][row] for row in rows]).astype(np.float32))

        def keep(share: float) -> Tensor:
            return torch.from_numpy((rng.random(size) >= share * drop).astype(np.float32))

        mean, logvar = pick("moments")[np.arange(size), rng.integers(2, size=size)].chunk(2, dim=1)
        image = mean + (0.5 * logvar).exp() * torch.from_numpy(rng.standard_normal(mean.shape, np.float32))
        targets = pick("targets")[:, frames] * self.scale
        padded = torch.zeros_like(targets)
        padded[:, 0] = image * self.scale * keep(DROP_IMAGE)[:, None, None, None]
        prompted = keep(DROP_PROMPT)
        texts = [
            prompt(scene_of(self._first + int(row)), int(rng.integers(2**31))) if prompted[i] else ""
            for i, row in enumerate(rows)
        ]
        return {
            "targets": targets, "image": padded, "ids": self.ids(texts),
            "tokens": pick("tokens")[np.arange(size), rng.integers(2, size=size)], "local": keep(DROP_FACE),
            "mask": self._faces(rows, frames), "frames": torch.from_numpy(frames),
        }  # fmt: skip

    def _faces(self, rows: Any, frames: NDArray[Any]) -> Tensor:
        """Return the mask of faces, 1 on them: float32 [B, F, 1, 16, 24]."""
        mask = torch.zeros(len(rows), len(frames), 1, HEIGHT // 4, WIDTH // 4)
        for i, row in enumerate(rows):
            for number, frame in enumerate(frames):
                seen = self.points[row][max(0, 4 * frame - 3) : 4 * frame + 1].reshape(-1, 2)
                (left, top), (right, bottom) = seen.min(0), seen.max(0)
                apart = 0.6 * (right - left)
                box = [
                    max(0, round(edge / 4)) for edge in (left - apart, top - 1.4 * apart, right + apart, bottom + apart)
                ]
                mask[i, number, 0, box[1] : box[3] + 1, box[0] : box[2] + 1] = 1
        return mask
