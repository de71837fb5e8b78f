"""Encodes the training set once, for the training of extractor, latent reader and transformer.

targets    float16 [N, 5, 16, 16, 24]     latents of the clips: mean of the posterior, not scaled
moments    float16 [N, 2, 32, 16, 24]     mean and log-variance of both portraits' latents
identity   float16 [N, 576]               ArcFace's and CLIP's embedding of the first portrait, joined
hidden     float16 [N, 5, 577, 64]        the CLIP tower's hidden states of the first portrait
tokens     float16 [N, 2, 16, 128]        the local facial extractor's tokens of both portraits
faces      float16 [N, 2, 512]            ArcFace's embedding of both portraits, of length 1

The first two are the part `video`. The next two, on which the extractor is trained, are the part `face`. The last two,
tokens for the transformer and faces for the latent reader, are the part `tokens`, which needs the trained extractor.
"""

from __future__ import annotations

import argparse
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from consisid_runtime.models.eva_clip import EvaVision
from consisid_training.data.clips import load
from consisid_training.faces import clip_tower, recogniser
from consisid_training.loop.device import DEVICE, autocast
from consisid_training.video import local, vae
from consisid_training.video.configs import TRANSFORMER

_memmap: Any = np.lib.format.open_memmap
_BLOCK = 50


def encode(data: Path, runs: Path, folder: Path, part: str, people: int, processes: int) -> None:
    """Encode `part` ("video", "face" or "tokens") of the first `people`; resumable, finished blocks are skipped."""
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / f"{part}-blocks"
    for name, shape in _shapes(part).items():
        if not (folder / f"{name}.npy").exists():
            for block in done.glob("[0-9]*"):
                block.unlink()
            _memmap(folder / f"{name}.npy", "w+", "float16", (len(load(data, "clips")), *shape))
    done.mkdir(exist_ok=True)
    missing = [start for start in range(0, people, _BLOCK) if not (done / str(start)).exists()]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        for _ in pool.imap_unordered(_Encoder(data, runs, folder, part), missing):
            pass


def _shapes(part: str) -> dict[str, tuple[int, ...]]:
    if part == "video":
        return {"targets": (5, 16, 16, 24), "moments": (2, 32, 16, 24)}
    if part == "face":
        return {"identity": (recogniser.OUT + clip_tower.OUT,), "hidden": (5, 577, clip_tower.WIDTH)}
    return {
        "tokens": (2, TRANSFORMER["LFE_num_querie"], TRANSFORMER["LFE_output_dim"]), "faces": (2, recogniser.OUT)
    }  # fmt: skip


class _Encoder:
    def __init__(self, data: Path, runs: Path, folder: Path, part: str) -> None:
        self.data, self.runs, self.folder, self.part = data, runs, folder, part
        self._loaded: Any = None

    def __call__(self, start: int) -> None:
        torch.set_num_threads(1)
        rows = slice(start, start + _BLOCK)
        with torch.inference_mode():
            found = getattr(self, f"_{self.part}")(rows)
        for name, values in found.items():
            array = np.load(self.folder / f"{name}.npy", mmap_mode="r+")
            array[rows] = values
            array.flush()
        (self.folder / f"{self.part}-blocks" / str(start)).touch()

    def _video(self, rows: slice) -> dict[str, Any]:
        if self._loaded is None:
            self._loaded = vae.trained(self.runs).to(DEVICE)
            _channels_last(self._loaded)

        def moments(pixels: Any) -> Tensor:
            frames = torch.from_numpy(np.array(pixels)).to(DEVICE).permute(0, 4, 1, 2, 3).float() / 127.5 - 1
            with autocast():
                encoded = self._loaded.encode(frames.contiguous(memory_format=torch.channels_last_3d))
            return encoded.latent_dist.parameters.float().cpu()  # type: ignore[no-any-return]

        clips, colours = load(self.data, "clips"), load(self.data, "colours")
        targets = [moments(clips[row : row + 5])[:, :16] for row in range(rows.start, rows.stop, 5)]
        both = moments(colours[rows].reshape(-1, 1, *colours.shape[2:]))
        return {
            "targets": torch.cat(targets).transpose(1, 2).numpy(),
            "moments": torch.unflatten(both[:, :, 0], 0, (-1, 2)).numpy(),
        }

    def _face(self, rows: slice) -> dict[str, Any]:
        identity, hidden = self._face_features(rows, view=0)
        return {"identity": identity.numpy(), "hidden": hidden.numpy()}

    def _tokens(self, rows: slice) -> dict[str, Any]:
        extractor, tokens, faces = local.trained_extractor(self.runs / "local"), [], []
        for view in (0, 1):
            identity, hidden = self._face_features(rows, view)
            tokens.append(extractor(identity, list(hidden.unbind(1))))
            faces.append(F.normalize(identity[:, : recogniser.OUT], dim=1))
        return {"tokens": torch.stack(tokens, dim=1).numpy(), "faces": torch.stack(faces, dim=1).numpy()}

    def _face_features(self, rows: slice, view: int) -> tuple[Tensor, Tensor]:
        """Return identity [n, 576] and hidden states [n, 5, 577, 64] of one of the portraits."""
        if self._loaded is None:
            tower = EvaVision.from_tensors(clip_tower.trained(self.runs / "clip_tower"))
            self._loaded = recogniser.trained(self.runs / "arcface", "arcface"), tower
        network, tower = self._loaded
        who = network(recogniser.normalise(load(self.data, "crops")[rows, view]))
        embeddings, states = zip(
            *(tower(clip_tower.normalise(grey[None])) for grey in load(self.data, "greys")[rows, view]), strict=True
        )
        return torch.cat((who, F.normalize(torch.cat(embeddings), dim=1)), dim=1), torch.cat(states, dim=1).transpose(
            0, 1
        )


def _channels_last(network: nn.Module) -> None:
    """Store kernels in channels-last layout, which saves a quarter of the time on CPUs."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            kind = torch.channels_last if isinstance(module, nn.Conv2d) else torch.channels_last_3d
            module.weight.data = module.weight.data.contiguous(memory_format=kind)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder of the training set")
    parser.add_argument("runs", type=Path, help="folder of the training runs, with vae, arcface, clip_tower, local")
    parser.add_argument("folder", type=Path, help="where to write the arrays")
    parser.add_argument("part", choices=("video", "face", "tokens"))
    parser.add_argument("--people", type=int, default=12_000)
    parser.add_argument("--processes", type=int, default=2)
    arguments = parser.parse_args()
    encode(arguments.data, arguments.runs, arguments.folder, arguments.part, arguments.people, arguments.processes)
