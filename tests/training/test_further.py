"""A checkpoint converted into training runs holds the same networks, and is written back as the same checkpoint."""

import json
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors.torch import load_file

import consisid_nano
from consisid_runtime.models.eva_clip import EvaVision
from consisid_training import further
from consisid_training.faces import clip_tower, recogniser
from consisid_training.video import dit, local


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    further.reopen(consisid_nano.checkpoint(), folder)
    return folder


def test_the_recogniser_equals_the_onnx_file(runs: Path) -> None:
    network = recogniser.trained(runs / "arcface", "arcface")
    faces = torch.rand(3, 3, recogniser.EDGE, recogniser.EDGE) * 2 - 1
    file = consisid_nano.checkpoint() / "face_encoder" / "models" / "antelopev2" / "glintr100.onnx"
    (wanted,) = onnxruntime.InferenceSession(file).run(None, {"input.1": faces.numpy()})
    with torch.no_grad():
        found = network(faces).numpy()
    assert np.linalg.norm(found - wanted) <= 1e-5 * np.linalg.norm(wanted)


def test_the_tower_and_the_extractor_are_complete(runs: Path) -> None:
    tower = EvaVision.from_tensors(clip_tower.trained(runs / "clip_tower"))
    extractor = local.trained_extractor(runs / "local")
    with torch.no_grad():
        embedding, hidden = tower(torch.zeros(1, 3, 336, 336))
        identity = torch.cat((torch.zeros(1, recogniser.OUT), embedding), dim=1)
        assert extractor(identity, list(hidden)).isfinite().all()


@pytest.mark.parametrize("seen", [[0, 1, 2, 3, 4], [0, 2, 4]])
def test_the_transformer_equals_diffusers_for_any_frames(runs: Path, seen: list[int]) -> None:
    """For a subset of frames, diffusers gets their positions in time through its own buffers."""
    import diffusers
    from diffusers.models.embeddings import get_3d_rotary_pos_embed

    folder = consisid_nano.checkpoint() / "transformer"
    make = diffusers.ConsisIDTransformer3DModel
    theirs = make.from_pretrained(folder, torch_dtype=torch.float32, low_cpu_mem_usage=False).eval()
    ours, extractor = dit.trained(runs / "start"), local.trained_extractor(runs / "local")
    torch.manual_seed(0)
    identity, hidden = torch.randn(2, 576), list(torch.randn(5, 2, 577, 64))
    noisy, image = torch.randn(2, 2, len(seen), 16, 16, 24).unbind(0)
    ids, times, frames = torch.randint(200, (2, 32)), torch.tensor([700, 40]), torch.tensor(seen)
    cos, sin = get_3d_rotary_pos_embed(64, ((0, 0), (8, 12)), (8, 12), 5)
    rotary = tuple(part.view(5, 96, 64)[frames].flatten(0, 1) for part in (cos, sin))
    positions = theirs.patch_embed.pos_embedding
    video = positions[:, 32:].view(1, 5, 96, -1)[:, frames].flatten(1, 2)
    theirs.patch_embed._get_positional_embeddings = lambda *sizes, device: torch.cat((positions[:, :32], video), 1)
    with torch.no_grad():
        batch = {"local": torch.ones(2), "frames": frames, "ids": ids, "tokens": extractor(identity, hidden)}
        found = ours(noisy, image, times, batch)
        (wanted,) = theirs(
            torch.cat((noisy, image), 2), ours.text_encoder(ids).last_hidden_state, times, image_rotary_emb=rotary,
            id_cond=identity, id_vit_hidden=hidden, return_dict=False,
        )  # fmt: skip
    assert torch.linalg.norm(found - wanted) <= 1e-5 * torch.linalg.norm(wanted)


def test_untrained_parts_are_written_back_unchanged(runs: Path, tmp_path: Path) -> None:
    (runs / "further").symlink_to(runs / "start")
    latents = torch.randn(6, 5, 16, 16, 24, generator=torch.Generator().manual_seed(0))
    np.save(tmp_path / "targets.npy", (2 * latents / latents.std()).numpy().astype(np.float16))
    shipped, written = consisid_nano.checkpoint(), tmp_path / "checkpoint"
    further.write(shipped, runs, tmp_path, written)
    files = sorted(file.relative_to(written) for file in written.rglob("*") if file.is_file())
    assert files == sorted(file.relative_to(shipped) for file in shipped.rglob("*") if file.is_file())
    for file in files:
        if file.suffix == ".safetensors":
            first, second = load_file(shipped / file), load_file(written / file)
            assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
        elif file == Path("vae", "config.json"):
            old, new = (json.loads((folder / file).read_text()) for folder in (shipped, written))
            assert new.pop("scaling_factor") == pytest.approx(0.5, rel=1e-3) and old.pop("scaling_factor")
            assert new == old
        else:
            assert (shipped / file).read_bytes() == (written / file).read_bytes(), file


def test_other_weights_are_not_overwritten(runs: Path, tmp_path: Path) -> None:
    further.reopen(consisid_nano.checkpoint(), runs)  # the same weights are accepted
    (tmp_path / "vae").mkdir()
    torch.save({"averaged": {}, "network": {}, "step": 9}, tmp_path / "vae" / "state.pt")
    with pytest.raises(FileExistsError, match="vae holds other weights"):
        further.reopen(consisid_nano.checkpoint(), tmp_path)
    assert torch.load(tmp_path / "vae" / "state.pt")["step"] == 9
