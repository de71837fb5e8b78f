import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.models.retinaface import RetinaFace

DATA = Path(__file__).parents[2] / "data"
SEEDED = runpy.run_path(str(DATA / "record_faces.py"))["seeded"]


@pytest.fixture(scope="module")
def record() -> Any:
    return np.load(DATA / "faces.npz")


def weights(record: Any, name: str) -> dict[str, Tensor]:
    tensors: dict[str, Tensor] = SEEDED(json.loads(str(record["shapes"]))[name], seed=1)
    return tensors


def relative(ours: Tensor, theirs: Any) -> float:
    return float(np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs))


@pytest.mark.parametrize("name", ["aligner", "aligner_narrow"], ids=["resnet50", "narrow, leaking"])
def test_heads_are_facexlibs(record: Any, name: str) -> None:
    network = RetinaFace.from_tensors({f"module.{key}": value for key, value in weights(record, name).items()})
    image = torch.randn(1, 3, 97, 131, generator=torch.Generator().manual_seed(2)) * 64
    boxes, scores, landmarks = network(image)
    assert relative(boxes[:, ::3], record[f"{name}_b"]) < 1e-5
    assert relative(scores[:, ::3], record[f"{name}_s"]) < 1e-5
    assert relative(landmarks[:, ::3], record[f"{name}_l"]) < 1e-5


def test_its_own_state_loads_again(record: Any) -> None:
    network = RetinaFace.from_tensors(weights(record, "aligner_narrow"))
    again = RetinaFace.from_tensors(network.state_dict())
    image = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    assert all(torch.equal(a, b) for a, b in zip(network(image), again(image), strict=True))


@pytest.mark.parametrize(
    "name", ["body.layer3.0.conv2.weight", "LandmarkHead.2.conv1x1.bias", "fpn.merge1.1.running_var"]
)
def test_a_missing_tensor_is_named(record: Any, name: str) -> None:
    tensors = weights(record, "aligner_narrow")
    del tensors[name]
    with pytest.raises(CheckpointInvalid, match=name.replace(".", r"\.")):
        RetinaFace.from_tensors(tensors)


def test_a_misshapen_tensor_is_named(record: Any) -> None:
    tensors = weights(record, "aligner_narrow")
    tensors["body.bn1.running_mean"] = torch.zeros(3)
    with pytest.raises(CheckpointInvalid, match=r"body\.bn1\.running_mean has shape \[3\], expected \[64\]"):
        RetinaFace.from_tensors(tensors)


def test_a_tensor_of_another_network_is_named(record: Any) -> None:
    with pytest.raises(CheckpointInvalid, match=r"body\.fc\.weight is not part"):
        RetinaFace.from_tensors(weights(record, "aligner_narrow") | {"body.fc.weight": torch.zeros(1)})
