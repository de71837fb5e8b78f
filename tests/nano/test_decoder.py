"""The decoder's training: it looks at faces as ArcFace does, learns, and leaves the encoder as it is."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import consisid_nano
from consisid_nano.world import clip, person
from consisid_runtime.face_geometry import arcface_transform, warp
from consisid_training import data, decoder, further, vae


def normalised(pixels: Any) -> Tensor:
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 127.5 - 1


def test_a_face_is_cut_as_arcface_sees_it() -> None:
    video = clip(person(5), data.scene_of(5), 5)
    found = decoder.faces(normalised(video.pixels), video.keypoints)
    for face, pixels, points in zip(found, video.pixels, video.keypoints, strict=True):
        wanted = warp(pixels, arcface_transform(points, 112), 112, border=(0, 0, 0))
        levels = ((face + 1) * 127.5).permute(1, 2, 0).numpy()
        assert np.abs(levels - wanted).mean() < 0.7


@torch.no_grad()
def error(network: Any, folder: Path) -> float:
    """Over the faces of the one clip in the data."""
    pixels, points = (np.load(folder / f"{name}.npy")[0] for name in ("clips", "points"))
    video = vae.normalise(pixels[None])
    made = network.decode(network.encode(video).latent_dist.mode()).sample
    near, truth = (decoder.faces(found[0].transpose(0, 1), points) for found in (made, video))
    return float((near - truth).abs().mean())


def test_it_learns_and_the_encoder_does_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vae, "BATCH", 1)
    stages = tmp_path / "stages"
    further.reopen(consisid_nano.checkpoint(), stages)
    data.draw(tmp_path / "data", 1, first=7)
    before = vae.trained(stages)
    decoder.train(tmp_path / "data", stages, steps=16)
    after = vae.trained(stages)
    changed = {
        name.split(".")[0] for name, t in before.state_dict().items() if not torch.equal(t, after.state_dict()[name])
    }
    assert changed == {"decoder"}
    assert error(after, tmp_path / "data") < 0.98 * error(before, tmp_path / "data")
