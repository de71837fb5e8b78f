import hashlib
import shutil
from pathlib import Path

import numpy as np
import pytest

from consisid_fidelity.judges.judges import REQUIRED_FILES, Judges
from consisid_runtime.errors import CheckpointInvalid, InvalidOption


def without(folder: Path, target: Path, *names: str) -> Judges:
    shutil.copytree(folder, target, ignore=shutil.ignore_patterns(*names))
    return Judges.open(target, "cpu", threads=1)


def test_a_whole_folder_misses_nothing(judge_folder: Path) -> None:
    judges = Judges.open(judge_folder, "cpu", threads=1)
    assert judges.missing == {}
    assert judges.faces is judges.faces
    digests = judges.digests()
    assert digests["arcface.onnx"] == hashlib.sha256((judge_folder / "arcface.onnx").read_bytes()).hexdigest()
    assert {"clip/model.safetensors", "attributes.json", "inception.onnx"} < set(digests)


@pytest.mark.parametrize(
    ("gone", "missing"),
    [
        (["arcface.onnx"], {"facesim_arc": ["arcface.onnx"], "facesim_arc_published": ["arcface.onnx"]}),
        (["clip"], {"clip_score": ["clip"], "clip_distance": ["clip"]}),
        (["inception.onnx"], {"face_distance": ["inception.onnx"], "fid": ["inception.onnx"]}),
        (["attributes.json"], {"prompt_accuracy": ["attributes.json"]}),
    ],
    ids=lambda value: "+".join(value),
)
def test_missing_files_disable_their_metrics(
    judge_folder: Path, tmp_path: Path, gone: list[str], missing: dict[str, list[str]]
) -> None:
    assert without(judge_folder, tmp_path / "judges", *gone).missing == missing


def test_without_a_detector_there_are_no_faces(judge_folder: Path, tmp_path: Path) -> None:
    judges = without(judge_folder, tmp_path / "judges", "detector.onnx")
    assert set(judges.missing) == {metric for metric, files in REQUIRED_FILES.items() if "detector.onnx" in files}
    assert judges.missing["fid"] == ["detector.onnx"]
    with pytest.raises(CheckpointInvalid, match=r"lacks detector\.onnx"):
        _ = judges.faces


def test_without_any_recogniser_face_metrics_need_one(judge_folder: Path, tmp_path: Path) -> None:
    judges = without(judge_folder, tmp_path / "judges", "arcface.onnx", "curricular.onnx")
    assert judges.missing["faces_found"] == judges.missing["fid"] == ["arcface.onnx or curricular.onnx"]
    assert judges.missing["facesim_cur"] == ["curricular.onnx"]


def test_folders_without_judges_and_unknown_devices_are_refused(judge_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointInvalid, match="holds none of the judges' files"):
        Judges.open(tmp_path)
    with pytest.raises(CheckpointInvalid, match="is not a folder"):
        Judges.open(tmp_path / "nowhere")
    with pytest.raises(InvalidOption, match="device must be one of"):
        Judges.open(judge_folder, "tpu")


def test_features_of_known_pictures(judge_folder: Path) -> None:
    judge = Judges.open(judge_folder, "cpu", threads=1).inception
    images = np.zeros((20, 16, 16, 3), np.uint8)
    images[:, :, :8] = (255, 51, 0)
    assert (judge.height, judge.width) == (16, 16)
    assert np.allclose(judge.features(images), [[0.5, 0.1, 0.0]] * 20, atol=1e-6)
    with pytest.raises(InvalidOption, match="16×16"):
        judge.features(images[:, :8])


@pytest.mark.parametrize("name", ["inception.onnx", "attributes.onnx"])
def test_a_damaged_network_is_named(judge_folder: Path, tmp_path: Path, name: str) -> None:
    folder = tmp_path / "judges"
    shutil.copytree(judge_folder, folder)
    (folder / name).write_bytes((folder / name).read_bytes()[:50])
    judges = Judges.open(folder, "cpu", threads=1)
    with pytest.raises(CheckpointInvalid, match=f"{name} is not a network"):
        _ = judges.inception if name == "inception.onnx" else judges.attributes


def test_a_network_with_other_ports_is_refused(judge_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "judges"
    shutil.copytree(judge_folder, folder)
    shutil.copy(folder / "attributes.onnx", folder / "inception.onnx")
    shutil.copy(folder / "arcface.onnx", folder / "attributes.onnx")
    judges = Judges.open(folder, "cpu", threads=1)
    with pytest.raises(CheckpointInvalid, match="images"):
        _ = judges.inception
    with pytest.raises(CheckpointInvalid, match="of clips"):
        _ = judges.attributes
