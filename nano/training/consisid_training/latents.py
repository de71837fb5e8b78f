"""Encodes the training set once: what the DiT learns from.

targets    float16 [N, 5, 16, 16, 24]     latents of the clips, the posterior's mean, not scaled
moments    float16 [N, 2, 32, 16, 24]     mean and log-variance of both portraits' latents
identity   float16 [N, 576]               ArcFace's and CLIP's embedding of the first portrait, joined
hidden     float16 [N, 5, 577, 64]        the CLIP tower's hidden states of the first portrait
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from consisid_runtime.models.eva_clip import EvaVision
from consisid_training import clip_tower, recogniser, vae
from consisid_training.data import load
from consisid_training.device import DEVICE, half

_memmap: Any = np.lib.format.open_memmap
_BLOCK = 50


def encode(data: Path, stages: Path, folder: Path, part: str, people: int, processes: int) -> None:
    """Encode `part` ("video" or "face") of the first `people`; finished blocks are not encoded again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, shape in _shapes(part).items():
        if not (folder / f"{name}.npy").exists():
            _memmap(folder / f"{name}.npy", "w+", "float16", (len(load(data, "clips")), *shape))
    done = folder / f"{part}-blocks"
    done.mkdir(exist_ok=True)
    missing = [start for start in range(0, people, _BLOCK) if not (done / str(start)).exists()]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for _ in pool.imap_unordered(_Work(data, stages, folder, part), missing):
            pass


def _shapes(part: str) -> dict[str, tuple[int, ...]]:
    if part == "video":
        return {"targets": (5, 16, 16, 24), "moments": (2, 32, 16, 24)}
    return {"identity": (recogniser.OUT + clip_tower.OUT,), "hidden": (5, 577, clip_tower.WIDTH)}


class _Work:
    def __init__(self, data: Path, stages: Path, folder: Path, part: str) -> None:
        self.data, self.stages, self.folder, self.part = data, stages, folder, part
        self._loaded: Any = None

    def __call__(self, start: int) -> None:
        torch.set_num_threads(1)
        rows = slice(start, start + _BLOCK)
        with torch.inference_mode():
            found = self._video(rows) if self.part == "video" else self._face(rows)
        for name, values in found.items():
            array = np.load(self.folder / f"{name}.npy", mmap_mode="r+")
            array[rows] = values
            array.flush()
        (self.folder / f"{self.part}-blocks" / str(start)).touch()

    def _video(self, rows: slice) -> dict[str, Any]:
        network = self._loaded = self._loaded or vae.trained(self.stages).to(DEVICE)

        def moments(pixels: Any) -> torch.Tensor:
            frames = torch.from_numpy(np.array(pixels)).to(DEVICE).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            with half():
                return network.encode(frames).latent_dist.parameters.float().cpu()  # type: ignore[no-any-return]

        clips, colours = load(self.data, "clips"), load(self.data, "colours")
        targets = [moments(clips[row : row + 5])[:, :16] for row in range(rows.start, rows.stop, 5)]
        both = moments(colours[rows].reshape(-1, 1, *colours.shape[2:]))
        return {
            "targets": torch.cat(targets).transpose(1, 2).numpy(),
            "moments": torch.unflatten(both[:, :, 0], 0, (-1, 2)).numpy(),
        }

    def _face(self, rows: slice) -> dict[str, Any]:
        if self._loaded is None:
            tower = EvaVision.from_tensors(clip_tower.trained(self.stages / "clip_tower"))
            self._loaded = recogniser.trained(self.stages / "arcface", "arcface"), tower
        network, tower = self._loaded
        who = network(recogniser.normalise(load(self.data, "crops")[rows, 0]))
        looks, states = zip(
            *(tower(clip_tower.normalise(grey[None])) for grey in load(self.data, "greys")[rows, 0]), strict=True
        )
        identity = torch.cat((who, F.normalize(torch.cat(looks), dim=1)), dim=1)
        return {"identity": identity.numpy(), "hidden": torch.cat(states, dim=1).transpose(0, 1).numpy()}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("stages", type=Path, help="folder of the trained stages vae, arcface, clip_tower")
    parser.add_argument("folder", type=Path)
    parser.add_argument("part", choices=("video", "face"))
    parser.add_argument("--people", type=int, default=12_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    encode(arguments.data, arguments.stages, arguments.folder, arguments.part, arguments.people, arguments.processes)
