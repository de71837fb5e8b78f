import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.bisenet import BiSeNet

DATA = Path(__file__).parents[2] / "data"
SEEDED = runpy.run_path(str(DATA / "record_faces.py"))["seeded"]


@pytest.fixture(scope="module")
def record() -> Any:
    return np.load(DATA / "faces.npz")


@pytest.fixture(scope="module")
def weights(record: Any) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = SEEDED(json.loads(str(record["shapes"]))["parser"], seed=3)
    return tensors


def test_logits_and_labels_are_facexlibs(record: Any, weights: dict[str, Tensor]) -> None:
    network = BiSeNet.from_tensors(weights)
    image = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(4))
    logits, theirs = network.logits(image), record["parser_logits"]
    assert np.linalg.norm(logits[:, :, ::5, ::7].numpy() - theirs) / np.linalg.norm(theirs) < 1e-5
    labels = network(image)
    assert labels.dtype == torch.uint8
    best = logits.topk(2, dim=1).values
    # Where two labels are that close, rounding decides between them.
    clear = (best[:, 0] - best[:, 1] > 1e-4 * best.abs().amax()).numpy()
    assert clear.mean() > 0.99
    np.testing.assert_array_equal(labels.numpy()[clear], record["parser_labels"][clear])


def test_training_heads_are_not_read(weights: dict[str, Tensor]) -> None:
    network = BiSeNet.from_tensors(weights)
    assert not any(name.startswith(("conv_out16", "conv_out32")) for name in network.state_dict())
    without = {name: value for name, value in weights.items() if not name.startswith(("conv_out16", "conv_out32"))}
    assert network.state_dict().keys() == without.keys() == BiSeNet.from_tensors(without).state_dict().keys()


def test_a_missing_tensor_is_named(weights: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointInvalid, match=r"ffm\.conv1\.weight is missing"):
        BiSeNet.from_tensors({name: value for name, value in weights.items() if name != "ffm.conv1.weight"})
