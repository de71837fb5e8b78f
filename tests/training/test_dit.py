"""The transformer's training: what a step learns and logs, and the latents that follow from a velocity."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from consisid_nano.world import person
from consisid_training.loop.resumable import EVERY
from consisid_training.video import dit, latent_reader, local, samples
from consisid_training.video.samples import WHOLE, Samples

PEOPLE = 6


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Random latents and tokens of a few people, and initial states of `local` and `latent_reader`."""
    folder, rng = tmp_path_factory.mktemp("training"), np.random.default_rng(0)
    shapes = {"targets": (5, 16, 16, 24), "moments": (2, 32, 16, 24), "tokens": (2, 16, 128)}
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", rng.standard_normal((PEOPLE, *shape)).astype(np.float16))
    face = np.array([(40, 24), (56, 24), (48, 32), (42, 40), (54, 40)], np.float32)
    np.save(folder / "points.npy", np.broadcast_to(face, (PEOPLE, 17, 5, 2)))
    numbers = len(person(0).shape())
    for name, network in (
        ("local", local.ExtractorInTraining(numbers)),
        ("latent_reader", latent_reader.LatentReader(numbers)),
    ):
        (folder / name).mkdir()
        torch.save({"averaged": network.state_dict()}, folder / name / "state.pt")
    return folder


def train(folder: Path, out: Path, steps: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(samples, "UNSEEN", 2)
        patch.setattr(dit, "CHECK_EVERY", EVERY)
        dit.train(folder, folder, folder, out, steps=steps, batch=1, people=PEOPLE, whole=0.5)


def test_it_learns_with_some_frames_and_with_all(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path, EVERY)
    (line,) = map(json.loads, (tmp_path / "log.jsonl").read_text().splitlines())
    assert {"error", "face", "unlike", "unseen_both", "unseen_local", "unseen_unlike_neither"} <= line.keys()
    before = dit.Model(samples.Samples(folder, folder, tmp_path / "tokenizer", PEOPLE + 200).vocabulary)
    after = dit.trained(tmp_path)
    moved = [name for name, tensor in after.state_dict().items() if not torch.equal(tensor, before.state_dict()[name])]
    assert any(name.startswith("text_encoder") for name in moved)
    assert any("perceiver_cross_attention" in name for name in moved)
    taught = local.trained(folder / "local")
    for name, tensor in after.transformer.local_facial_extractor.state_dict().items():
        assert torch.equal(tensor, taught[f"local_facial_extractor.{name}"]), "the extractor must be unchanged"


def test_an_exact_velocity_gives_the_clean_latents(folder: Path, tmp_path: Path) -> None:
    """The reader distance is then 0."""
    dit.write_tokenizer(tmp_path, [dit.prompt(dit.scene(n), n) for n in range(200)], pieces=256)
    drawn = Samples(folder, folder, tmp_path, PEOPLE + 200).draw(np.arange(4), WHOLE, np.random.default_rng(1))
    signal, rng = dit.alphas(), np.random.default_rng(2)

    def oracle(noisy: Tensor, image: Tensor, times: Tensor, batch: dict[str, Tensor]) -> Tensor:
        share = signal[times].view(-1, 1, 1, 1, 1)
        noise = (noisy - share.sqrt() * batch["targets"]) / (1 - share).sqrt()
        return share.sqrt() * noise - (1 - share).sqrt() * batch["targets"]

    predicted = dit._predict(oracle, drawn, signal, rng)  # type: ignore[arg-type]
    assert predicted.squared.max() < 1e-6
    assert torch.linalg.norm(predicted.clean - drawn["targets"]) <= 1e-4 * torch.linalg.norm(drawn["targets"])
    critic = latent_reader.trained(folder / "latent_reader")
    assert abs(predicted.reader_distance(critic, rng)) < 1e-6
    wrong = dit._Prediction(predicted.squared, predicted.clean.flip(0), predicted.target, predicted.share)
    assert wrong.reader_distance(critic, rng) > 1e-3
