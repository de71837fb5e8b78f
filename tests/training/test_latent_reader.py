"""The latent reader learns attributes, and its distance separates latents that differ in them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consisid_nano.world import LABELS, person
from consisid_training.data.clips import scene_classes
from consisid_training.loop.resumable import EVERY
from consisid_training.video import latent_reader

PEOPLE = 24


def encoded(folder: Path) -> Path:
    """Latents that encode only freckles, in one place, and a smile, in another; faces encode freckles too."""
    latents = 0.3 * np.random.default_rng(0).standard_normal((PEOPLE, 5, 16, 16, 24))
    freckled = np.array([bool(person(row).freckles) for row in range(PEOPLE)])
    latents[freckled, :, 3, 6:10, 8:12] += 3
    latents[smiling(), :, 5, 10:14, 8:12] += 3
    np.save(folder / "targets.npy", latents.astype(np.float16))
    faces = np.zeros((PEOPLE, 2, 512))
    faces[freckled, :, 0] = faces[~freckled, :, 1] = 1
    np.save(folder / "faces.npy", faces.astype(np.float16))
    return folder


def smiling() -> np.ndarray[Any, np.dtype[np.bool_]]:
    return scene_classes(range(PEOPLE), ["expression"])[:, 0] == LABELS["expression"].index("happy")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("latent_reader")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_reader, "UNSEEN", 4)
        latent_reader.train(encoded(folder), folder / "latent_reader", 3 * EVERY, people=PEOPLE, batch=16)
    return folder


def test_it_learns_what_latents_encode(taught: Path) -> None:
    last = json.loads((taught / "latent_reader" / "log.jsonl").read_text().splitlines()[-1])
    assert last["freckles"] >= 0.95
    assert {"numbers", "face", *latent_reader.CLASSES} <= last.keys()


def test_it_predicts_smiles_and_faces(taught: Path) -> None:
    latents = torch.from_numpy(np.load(taught / "targets.npy")[:, 0].astype(np.float32))
    _, predicted = latent_reader.trained(taught / "latent_reader")(latents / latents.std())
    happy = predicted[list(latent_reader.CLASSES).index("expression")].softmax(1)[
        :, LABELS["expression"].index("happy")
    ]
    smiles = torch.from_numpy(smiling())
    assert happy[smiles].min() > happy[~smiles].max()
    faces = torch.from_numpy(np.load(taught / "faces.npy")[:, 0, :2].astype(np.float32))
    assert torch.equal(predicted[-1][:, :2].argmax(1), faces.argmax(1))


def test_distance_is_small_for_equal_content_only(taught: Path) -> None:
    network = latent_reader.trained(taught / "latent_reader")
    latents = torch.from_numpy(np.load(taught / "targets.npy")[:, 0].astype(np.float32))
    latents = latents / latents.std()
    freckled = torch.tensor([bool(person(row).freckles) for row in range(PEOPLE)])
    some = latents[freckled][:4].requires_grad_()
    same = latent_reader.distance(network, some, some.detach())
    assert same.shape == (4,) and same.abs().max() < 1e-6
    noisy = latent_reader.distance(network, some + 0.05 * torch.randn(some.shape), some.detach())
    other = latent_reader.distance(network, some, latents[~freckled][:4])
    assert other.min() > 3 * noisy.max()
    other.sum().backward()
    assert some.grad is not None and some.grad.isfinite().all() and some.grad.any()
