"""The full-size checkpoint has the published files' names, shapes and layout."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from consisid_benchmarks.suites import full_checkpoint, full_faces
from consisid_benchmarks.suites.full_checkpoint import write_full_checkpoint
from consisid_export.checkpoint.checkpoint import Checkpoint
from consisid_export.checkpoint.skeleton import stored
from consisid_export.checkpoint.tensor_files import pieces
from consisid_nano.untrained import configs as untrained
from consisid_runtime.errors import OutputUnwritable
from consisid_runtime.models import networks
from consisid_runtime.models.configs.checkpoint import CheckpointConfig

DATA = Path(__file__).parents[2] / "data"


def bare(shapes: full_faces.Shapes) -> dict[str, tuple[int, ...]]:
    return {name.removeprefix("module.").removeprefix("visual."): tuple(shape) for name, shape in shapes.items()}


def test_face_networks_have_the_published_names_and_shapes() -> None:
    published = json.loads(str(np.load(DATA / "faces.npz")["shapes"]))
    assert bare(full_faces.aligner()) == bare(published["aligner"])
    assert bare(full_faces.parser()) == bare(published["parser"])
    # The recorded shapes are of a narrower network; only names and ranks equal the published file's.
    ranks = {name: len(shape) for name, shape in bare(published["clip"]).items()}
    assert {n: len(s) for n, s in bare(full_faces.clip()).items() if not n.startswith("text.")} == ranks


def test_the_number_of_parameters_is_as_published() -> None:
    configs = {
        "transformer": full_checkpoint.TRANSFORMER,
        "vae": full_checkpoint.VAE,
        "text_encoder": full_checkpoint.TEXT_ENCODER,
    }
    counts = {
        component: sum(p.numel() for part in parts for p in part.parameters())
        for component, parts in networks.skeletons(CheckpointConfig(configs.__getitem__)).items()
    }
    assert counts["transformer"] == 6_162_495_040
    assert counts["text_encoder"] == 4_762_310_656
    assert round(counts["vae"] / 1e6, 1) == 215.6
    vision = {name: shape for name, shape in full_faces.clip().items() if "rope" not in name and "text." not in name}
    assert sum(map(math.prod, vision.values())) == 304_432_832


def test_shards_and_their_index_are_read_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_checkpoint, "TRANSFORMER", untrained.TRANSFORMER)
    monkeypatch.setattr(full_checkpoint, "SHARD", 2_000_000)
    write_full_checkpoint(tmp_path, only="transformer")
    files = sorted(path.name for path in (tmp_path / "transformer").iterdir())
    assert files[:2] == ["config.json", "diffusion_pytorch_model-00001-of-00003.safetensors"]
    found = stored(Checkpoint(tmp_path), "transformer")
    dit = networks.load("dit_step", Checkpoint(tmp_path))
    weight = dit.get_parameter("transformer_blocks.0.attn1.to_q.weight")
    assert weight.std() == pytest.approx(1 / math.sqrt(weight.shape[1]), rel=0.05)
    scale = torch.cat(list(pieces(found["norm_final.weight"]))).float()
    assert scale.mean() == pytest.approx(1, abs=0.1)
    assert 0 < scale.std() < 0.3


def test_an_interrupted_run_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def inodes() -> list[int]:
        return [path.stat().st_ino for path in sorted((tmp_path / "transformer").glob("*.safetensors"))]

    monkeypatch.setattr(full_checkpoint, "TRANSFORMER", untrained.TRANSFORMER)
    monkeypatch.setattr(full_checkpoint, "SHARD", 2_000_000)
    write_full_checkpoint(tmp_path, only="transformer")
    first, second, third = inodes()
    missing = tmp_path / "transformer" / "diffusion_pytorch_model-00002-of-00003.safetensors"
    kept = missing.rename(tmp_path / "kept")  # so that its inode is not reused
    write_full_checkpoint(tmp_path, only="transformer")
    assert (inodes()[0], inodes()[2]) == (first, third)
    assert inodes()[1] != second
    assert missing.read_bytes() == kept.read_bytes()


@pytest.mark.parametrize("file", ["transformer/config.json", "photo.jpg", ".random-weights"])
def test_a_checkpoint_of_somebody_elses_is_not_overwritten(tmp_path: Path, file: str) -> None:
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("mine")
    with pytest.raises(OutputUnwritable, match="not written here"):
        write_full_checkpoint(tmp_path, only="transformer")
    assert [path.read_text() for path in tmp_path.rglob("*") if path.is_file()] == ["mine"]


def test_a_shard_of_another_size_is_rewritten(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(full_checkpoint, "TRANSFORMER", untrained.TRANSFORMER)
    layers = {}
    for asked in (None, 2):
        write_full_checkpoint(tmp_path, only="transformer", layers=asked)
        names = stored(Checkpoint(tmp_path), "transformer")
        layers[asked] = {name.split(".")[1] for name in names if name.startswith("transformer_blocks.")}
        assert Checkpoint(tmp_path).config.file("transformer")["num_layers"] == len(layers[asked])
    assert layers[2] == {"0", "1"} < layers[None]
