"""What the transformer makes is looked at through a network that knows what people look like."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from consisid_nano.world import LABELS, person
from consisid_training.data.clips import acted
from consisid_training.loop.resumable import EVERY
from consisid_training.video import latent_reader

PEOPLE = 24


def encoded(folder: Path) -> Path:
    """Latents that show nothing but whether their person has freckles, in one place, and whether it smiles in another;
    those with freckles have one face, and all others have another."""
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
    return acted(range(PEOPLE), ["expression"])[:, 0] == LABELS["expression"].index("happy")


@pytest.fixture(scope="module")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("looks")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(latent_reader, "UNSEEN", 4)
        latent_reader.train(encoded(folder), folder / "looks", 3 * EVERY, people=PEOPLE, batch=16)
    return folder


def test_it_learns_what_is_to_be_seen(taught: Path) -> None:
    last = json.loads((taught / "looks" / "log.jsonl").read_text().splitlines()[-1])
    assert last["freckles"] >= 0.95
    assert {"numbers", "face", *latent_reader.CLASSES} <= last.keys()


def test_it_tells_a_smile_and_a_face_from_others(taught: Path) -> None:
    latents = torch.from_numpy(np.load(taught / "targets.npy")[:, 0].astype(np.float32))
    _, said = latent_reader.trained(taught / "looks")(latents / latents.std())
    happy = said[list(latent_reader.CLASSES).index("expression")].softmax(1)[:, LABELS["expression"].index("happy")]
    smiles = torch.from_numpy(smiling())
    assert happy[smiles].min() > happy[~smiles].max()
    faces = torch.from_numpy(np.load(taught / "faces.npy")[:, 0, :2].astype(np.float32))
    assert torch.equal(said[-1][:, :2].argmax(1), faces.argmax(1))


def test_latents_that_show_the_same_are_near_and_others_are_not(taught: Path) -> None:
    network = latent_reader.trained(taught / "looks")
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
