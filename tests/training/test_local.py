"""The local path is trained separately and loaded into the transformer."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from consisid_training.loop.resumable import EVERY
from consisid_training.video import dit, local
from consisid_training.video.configs import TRANSFORMER

PEOPLE = 8


def encoded(folder: Path) -> Path:
    """Random features and latents of a few people."""
    rng = np.random.default_rng(0)
    shapes = {"identity": (576,), "hidden": (5, 577, 64), "moments": (2, 32, 16, 24)}
    for name, shape in shapes.items():
        np.save(folder / f"{name}.npy", rng.standard_normal((PEOPLE, *shape)).astype(np.float16))
    return folder


def test_the_transformer_starts_with_the_trained_local_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "UNSEEN", 2)
    local.train(encoded(tmp_path), tmp_path / "local", EVERY, batch=2)
    first = json.loads((tmp_path / "local" / "log.jsonl").read_text())
    assert {"picture", "numbers", "freckles"} <= first.keys()
    taught = local.trained(tmp_path / "local")
    model = dit.Model(vocabulary=300)
    model.load_local_path(taught)
    transformer = model.transformer
    assert len(transformer.perceiver_cross_attention) == TRANSFORMER["num_layers"] // 2
    for name, tensor in transformer.state_dict().items():
        if name in taught and not name.endswith("to_out.weight"):
            assert torch.equal(tensor, taught[name]), name
    with torch.no_grad():
        tokens = torch.randn(2, TRANSFORMER["LFE_num_querie"], TRANSFORMER["LFE_output_dim"])
        for attention in transformer.perceiver_cross_attention:
            assert not attention(tokens, torch.randn(2, 7, 192)).any(), "the local path must not affect the first step"
    assert not any(p.requires_grad for p in transformer.local_facial_extractor.parameters())
    assert all(p.requires_grad for p in transformer.perceiver_cross_attention.parameters())
