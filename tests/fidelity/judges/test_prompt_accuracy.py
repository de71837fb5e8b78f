import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from consisid_fidelity.errors import CollectionInvalid
from consisid_fidelity.judges.prompt_accuracy import AttributeJudge, accuracy, hits
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.mp4 import Frames


@pytest.fixture(scope="module")
def judge(judge_folder: Path) -> AttributeJudge:
    return AttributeJudge(judge_folder / "attributes.onnx", judge_folder / "attributes.json", "cpu", 1)


def clip(colour: int, levels: list[int]) -> Frames:
    video = np.zeros((4, 96, 96, 3), np.uint8)
    video[..., colour] = np.array(levels, np.uint8)[:, None, None]
    return video


@pytest.mark.parametrize(("colour", "name"), [(0, "red"), (1, "green"), (2, "blue")])
def test_predictions_of_known_clips(judge: AttributeJudge, colour: int, name: str) -> None:
    assert judge.predict(clip(colour, [50, 60, 70, 80])) == {"colour": name, "end": "bright"}
    assert judge.predict(clip(colour, [80, 60, 70, 50])) == {"colour": name, "end": "dark"}


def test_accuracy_counts_attributes_that_are_labelled_and_judged(judge: AttributeJudge) -> None:
    first = hits(judge.predict(clip(0, [1, 2, 3, 4])), {"colour": "red", "end": "dark", "seed": "7"})
    second = hits(judge.predict(clip(2, [1, 2, 3, 4])), {"colour": "red"})
    assert first == {"colour": True, "end": False} and second == {"colour": False}
    shares = accuracy([first, second])
    assert {name: outcomes.tolist() for name, outcomes in shares.items()} == {"colour": [True, False], "end": [False]}


@pytest.mark.parametrize("shape", [(3, 96, 96, 3), (4, 96, 64, 3)])
def test_a_video_of_another_shape_is_refused(judge: AttributeJudge, shape: tuple[int, ...]) -> None:
    with pytest.raises(CollectionInvalid, match="4 frames of 96×96, this video has"):
        judge.predict(np.zeros(shape, np.uint8))


def test_an_unknown_label_is_refused(judge: AttributeJudge) -> None:
    judge.check_labels({"colour": "red", "seed": "7"}, "row 1")
    with pytest.raises(CollectionInvalid, match="row 2: colour is 'pink', the classes are red, green, blue"):
        judge.check_labels({"colour": "pink"}, "row 2")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", "not a JSON"),
        ("[]", "must be an object"),
        ('{"colour": []}', "must be an object"),
        ('{"colour": ["red"]}', "names colour"),
    ],
)
def test_classes_that_do_not_fit_are_refused(judge_folder: Path, tmp_path: Path, content: str, message: str) -> None:
    (tmp_path / "attributes.json").write_text(content)
    with pytest.raises(CheckpointInvalid, match=message):
        AttributeJudge(judge_folder / "attributes.onnx", tmp_path / "attributes.json", "cpu", 1)


def test_an_extra_class_is_refused(judge_folder: Path, tmp_path: Path) -> None:
    shutil.copy(judge_folder / "attributes.onnx", tmp_path)
    classes = {"colour": ["red", "green", "blue", "pink"], "end": ["dark", "bright"]}
    (tmp_path / "attributes.json").write_text(json.dumps(classes))
    with pytest.raises(CheckpointInvalid, match="output colour"):
        AttributeJudge(tmp_path / "attributes.onnx", tmp_path / "attributes.json", "cpu", 1).predict(
            clip(0, [1, 2, 3, 4])
        )
