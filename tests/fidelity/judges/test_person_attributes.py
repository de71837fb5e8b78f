import json
from pathlib import Path

import numpy as np
import pytest

from consisid_fidelity.judges.faces import Faces
from consisid_fidelity.judges.person_attributes import PersonAttributeJudge
from consisid_nano.untrained.graph import Graph
from consisid_runtime.errors import CheckpointInvalid

CLASSES = {"hue": ["red", "green", "blue"]}
KEYPOINTS = np.array([[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]], np.float32)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    graph = Graph()
    graph.add("ReduceMean", "faces", axes=[2, 3], keepdims=0, output="hue")
    graph.save(tmp_path / "person.onnx", {"faces": ["n", 3, 112, 112]}, {"hue": ["n", 3]})
    (tmp_path / "person.json").write_text(json.dumps(CLASSES))
    return tmp_path


def faces(found: list[bool]) -> Faces:
    shown = np.array(found)[:, None]
    boxes = np.where(shown, np.array([[0, 0, 111, 111]], np.float32), np.nan).astype(np.float32)
    keypoints = np.where(shown[:, None], KEYPOINTS[None], np.nan).astype(np.float32)
    return Faces(boxes, keypoints, {})


def test_logits_are_averaged_over_the_frames_with_a_face(folder: Path) -> None:
    judge = PersonAttributeJudge(folder, "cpu", 1)
    frames = np.zeros((3, 112, 112, 3), np.uint8)
    frames[0, ..., 0], frames[1, ..., 1], frames[2, ..., 2] = 100, 200, 255
    assert judge.predict(frames, faces([True, True, True])) == {"hue": "blue"}
    assert judge.predict(frames, faces([True, True, False])) == {"hue": "green"}
    assert judge.predict(frames, faces([True, False, False])) == {"hue": "red"}
    assert judge.predict(frames, faces([False, False, False])) == {}


def test_a_folder_without_it_or_with_other_names_is_refused(folder: Path) -> None:
    (folder / "person.json").write_text(json.dumps({"shade": ["light"]}))
    with pytest.raises(CheckpointInvalid, match="shade"):
        PersonAttributeJudge(folder, "cpu", 1)
    (folder / "person.onnx").unlink()
    with pytest.raises(CheckpointInvalid, match=r"lacks person\.onnx"):
        PersonAttributeJudge(folder, "cpu", 1)
