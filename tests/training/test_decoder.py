"""The decoder's training crops faces as ArcFace does, reduces the error over faces, and keeps the encoder unchanged."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import consisid_nano
from consisid_nano.world import clip, person
from consisid_runtime.stages.face.geometry import arcface_transform, warp
from consisid_training import further
from consisid_training.data import clips
from consisid_training.faces import recogniser
from consisid_training.loop.resumable import EVERY
from consisid_training.video import decoder, vae


def test_faces_are_cropped_as_for_arcface() -> None:
    video = clip(person(5), clips.scene_of(5), 5)
    found = decoder.faces(recogniser.normalise(video.pixels), video.keypoints)
    for face, pixels, points in zip(found, video.pixels, video.keypoints, strict=True):
        wanted = warp(pixels, arcface_transform(points, 112), 112, border=(0, 0, 0))
        levels = ((face + 1) * 127.5).permute(1, 2, 0).numpy()
        assert np.abs(levels - wanted).mean() < 0.7


@torch.no_grad()
def error(network: Any, folder: Path) -> float:
    """Mean absolute error over the faces of the only clip in the data."""
    pixels, points = (np.load(folder / f"{name}.npy")[0] for name in ("clips", "points"))
    video = vae.normalise(pixels[None])
    made = network.to(video.device).decode(network.encode(video).latent_dist.mode()).sample
    near, truth = (decoder.faces(found[0].transpose(0, 1), points) for found in (made, video))
    return float((near - truth).abs().mean())


def crop(folder: Path) -> None:
    """Keeps nine frames and the middle of each: a quarter of the pixels to train on, with the face in it."""
    (height, width), (top, left) = vae.CROP, (8, 16)
    pixels, points = (np.load(folder / f"{name}.npy")[:, :9] for name in ("clips", "points"))
    np.save(folder / "clips.npy", pixels[:, :, top : top + height, left : left + width])
    np.save(folder / "points.npy", points - np.array([left, top], np.float32))


def test_frames_of_each_video() -> None:
    videos = (100 * torch.arange(2).view(2, 1, 1, 1, 1) + torch.arange(17).view(17, 1, 1)).expand(2, 3, 17, 4, 6)
    found = decoder.frames_of(videos, np.array([[3, 0, 16], [5, 5, 1]]))
    assert found.shape == (6, 3, 4, 6) and found[:, 0, 0, 0].tolist() == [3, 0, 16, 105, 105, 101]


def test_the_decoder_learns_and_the_encoder_is_unchanged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The written checkpoint has the trained decoder."""
    monkeypatch.setattr(vae, "BATCH", 1)
    runs, shipped = tmp_path / "runs", consisid_nano.checkpoint()
    further.reopen(shipped, runs)
    clips.draw(tmp_path / "data", 1, first=7)
    crop(tmp_path / "data")
    before, taught = vae.trained(runs), vae.trained(runs)
    monkeypatch.setattr(vae, "trained", lambda folder: taught)
    decoder.train(tmp_path / "data", runs, steps=EVERY)
    monkeypatch.undo()
    assert all(
        torch.equal(t, before.encoder.state_dict()[name]) for name, t in taught.encoder.cpu().state_dict().items()
    )
    after = vae.trained(runs)
    assert error(after, tmp_path / "data") < 0.98 * error(before, tmp_path / "data")
    (line,) = map(json.loads, (runs / "decoder" / "log.jsonl").read_text().splitlines())
    assert 0.8 < line["cosine"] < 1 and 0 < line["face"] < 0.2

    (runs / "further").symlink_to(runs / "start")
    np.save(tmp_path / "targets.npy", np.random.default_rng(0).standard_normal((2, 5, 16, 16, 24)).astype(np.float16))
    further.write(shipped, runs, tmp_path, tmp_path / "checkpoint")
    (file,) = (tmp_path / "checkpoint" / "vae").glob("*.safetensors")
    written, wanted = load_file(file), after.cpu().half().state_dict()
    assert written.keys() == wanted.keys() and all(torch.equal(written[name], wanted[name]) for name in wanted)
