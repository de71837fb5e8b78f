"""Batches for the transformer hold the requested people and frames, and drop conditions at the stated rates."""

import numpy as np
import pytest

from consisid_nano.untrained.tokenizer import write_tokenizer
from consisid_nano.world import prompt, scene
from consisid_training.video import samples
from consisid_training.video.samples import UNSEEN, WHOLE, Samples

PEOPLE = UNSEEN + 40


@pytest.fixture(scope="module")
def drawn_from(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """Every value of person n is n, except that latents have no variance and faces are in the middle."""
    folder = tmp_path_factory.mktemp("samples")
    numbers = np.arange(PEOPLE, dtype=np.float16)
    shapes = {"targets": (5, 16, 16, 24), "tokens": (2, 16, 128)}
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", np.broadcast_to(numbers.reshape(-1, *[1] * len(shape)), (PEOPLE, *shape)))
    moments = np.full((PEOPLE, 2, 32, 16, 24), -100, np.float16)
    moments[:, :, :16] = numbers.reshape(-1, 1, 1, 1, 1)
    np.save(folder / "moments.npy", moments)
    face = np.array([(40, 24), (56, 24), (48, 32), (42, 40), (54, 40)], np.float32)
    np.save(folder / "points.npy", np.broadcast_to(face, (PEOPLE, 17, 5, 2)))
    write_tokenizer(folder / "tokenizer", [prompt(scene(n), n) for n in range(200)], pieces=256)
    return Samples(folder, folder, folder / "tokenizer", PEOPLE)


def test_unseen_people_are_excluded(drawn_from: Samples) -> None:
    assert len(drawn_from.unseen) == UNSEEN
    assert sorted([*drawn_from.seen, *drawn_from.unseen]) == list(range(PEOPLE))


def test_a_batch_holds_the_requested_people(drawn_from: Samples) -> None:
    rows = np.array([3, 17])
    batch = drawn_from.draw(rows, np.array([0, 2, 3]), np.random.default_rng(0), drop=False)
    assert batch["tokens"].shape == (2, 16, 128) and batch["tokens"][:, 0, 0].tolist() == [3, 17]
    for name in ("targets", "image"):
        assert batch[name].shape == (2, 3, 16, 16, 24)
        assert np.allclose(batch[name][:, 0, 0, 0, 0] / drawn_from.scale, rows), name
    assert not batch["image"][:, 1:].any(), "only the first latent frame has an image"
    assert batch["local"].tolist() == [1, 1]
    assert batch["frames"].tolist() == [0, 2, 3]
    assert batch["mask"][0, 0, 0, 8, 12] == 1 and batch["mask"][0, 0, 0, 0, 0] == 0


def test_conditions_are_dropped_at_the_stated_rates(drawn_from: Samples) -> None:
    rows = np.random.default_rng(1).choice(drawn_from.seen[1:], 600)
    batch = drawn_from.draw(rows, WHOLE, np.random.default_rng(2))
    empty = drawn_from.ids([""])[0]
    shares = {
        samples.DROP_IMAGE: (batch["image"][:, 0].abs().sum((1, 2, 3)) == 0).float().mean(),
        samples.DROP_FACE: 1 - batch["local"].mean(),
        samples.DROP_PROMPT: (batch["ids"] == empty).all(1).float().mean(),
    }
    for wanted, found in shares.items():
        assert abs(float(found) - wanted) < 4 * np.sqrt(wanted * (1 - wanted) / len(rows))


def test_a_batch_holds_the_requested_frames(drawn_from: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    targets = np.broadcast_to(np.arange(5, dtype=np.float16).reshape(1, 5, 1, 1, 1), (PEOPLE, 5, 16, 16, 24))
    points = np.array(drawn_from.points)
    points[:, -1] += (24, 0)
    monkeypatch.setitem(drawn_from.arrays, "targets", targets)
    monkeypatch.setattr(drawn_from, "points", points)
    batch = drawn_from.draw(np.array([5]), np.array([0, 1, 4]), np.random.default_rng(0))
    assert np.allclose(batch["targets"][0, :, 0, 0, 0] / drawn_from.scale, [0, 1, 4])
    assert batch["mask"][0, :, 0, 8, 20].tolist() == [0, 0, 1], "the face is on the right in the last frame only"


def test_scenes_are_those_of_the_people(drawn_from: Samples, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(drawn_from, "_first", 70_000)
    monkeypatch.setattr(samples, "DROP_PROMPT", 0.0)
    monkeypatch.setattr(samples, "scene_of", lambda number: asked.append(number) or scene(number))
    drawn_from.draw(np.array([5, 9]), WHOLE, np.random.default_rng(0))
    assert asked == [70_005, 70_009]
