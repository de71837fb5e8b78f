import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.eva_clip import EvaVision, rope_table

DATA = Path(__file__).parents[2] / "data"
SEEDED = runpy.run_path(str(DATA / "record_faces.py"))["seeded"]
IMAGE = torch.randn(1, 3, 56, 56, generator=torch.Generator().manual_seed(6))


@pytest.fixture(scope="module")
def record() -> Any:
    return np.load(DATA / "faces.npz")


@pytest.fixture(scope="module")
def weights(record: Any) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = SEEDED(json.loads(str(record["shapes"]))["clip"], seed=5)
    return tensors


def relative(ours: Tensor, theirs: Any) -> float:
    return float(np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs))


def test_embedding_and_hidden_states_are_the_packages(record: Any, weights: dict[str, Tensor]) -> None:
    """24 blocks of width 96 with heads of 32: the published structure, the rotary table in the file being garbage."""
    embedding, hidden = EvaVision.from_tensors(weights)(IMAGE)
    assert relative(embedding, record["clip_embedding"]) < 1e-5
    assert hidden.shape == (5, 1, 17, 96)
    for ours, theirs in zip(hidden, record["clip_hidden"], strict=True):
        assert relative(ours, theirs) < 1e-5


def test_sizes_are_read_from_the_tensors(weights: dict[str, Tensor]) -> None:
    sizes = EvaVision.from_tensors(weights).sizes
    assert sizes == {"clip_size": 56, "clip_tokens": 17, "clip_dim": 96, "clip_out": 48, "scales": 5}


def test_the_vision_tower_of_a_whole_clip_is_taken(weights: dict[str, Tensor]) -> None:
    whole = {f"visual.{name}": value for name, value in weights.items()} | {"text.ln_final.weight": torch.ones(3)}
    ours, bare = EvaVision.from_tensors(whole), EvaVision.from_tensors(weights)
    assert torch.equal(ours(IMAGE)[0], bare(IMAGE)[0])
    assert torch.equal(EvaVision.from_tensors(ours.state_dict())(IMAGE)[1], bare(IMAGE)[1])


def test_half_precision_weights_are_computed_in_single(weights: dict[str, Tensor]) -> None:
    network = EvaVision.from_tensors({name: value.half() for name, value in weights.items()})
    assert {tensor.dtype for tensor in network.state_dict().values()} == {torch.float32}


def test_hidden_states_come_from_sixths_of_the_depth(weights: dict[str, Tensor]) -> None:
    shallow = {
        name: value for name, value in weights.items() if not name.startswith("blocks.") or int(name.split(".")[1]) < 6
    }
    _, hidden = EvaVision.from_tensors(shallow)(IMAGE)
    _, deep = EvaVision.from_tensors(weights)(IMAGE)
    assert torch.equal(hidden[3], deep[0])  # both before block 4


def test_rotation_has_row_and_column_halves() -> None:
    cos, sin = rope_table(grid=4, head_dim=8)
    angle = 2 / 4 * 16 * torch.tensor([1.0, 0.01])  # second row, stretched to a grid of 16
    torch.testing.assert_close(cos[4 * 2 + 0], torch.cat((angle.cos().repeat_interleave(2), torch.ones(4))))
    torch.testing.assert_close(sin[4 * 0 + 2], torch.cat((torch.zeros(4), angle.sin().repeat_interleave(2))))


def test_a_depth_without_sixths_is_refused(weights: dict[str, Tensor]) -> None:
    short = {name: value for name, value in weights.items() if not name.startswith("blocks.23.")}
    with pytest.raises(CheckpointInvalid, match="23 blocks found, expected a multiple of 6"):
        EvaVision.from_tensors(short)


def test_a_missing_tensor_is_named(weights: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointInvalid, match=r"blocks\.7\.attn\.q_bias is missing"):
        EvaVision.from_tensors({name: value for name, value in weights.items() if name != "blocks.7.attn.q_bias"})
