from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from consisid_export.onnx.sample_portrait import drawn_portrait
from consisid_fidelity.metrics.distance import MAX_PSNR
from consisid_fidelity.nano.measure import Measurements, Measurer, ReferenceVideo
from consisid_nano.untrained.graph import Graph
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.mp4 import Frames
from consisid_runtime.stages.face.image import Pixels

GALLERY_SIZE = 3
LATENTS = np.ones((1, 3, 4, 2, 2), np.float32)


@dataclass(frozen=True)
class FakeCase:
    """A case, its person and its scene in one: a drawn person that the untrained judges detect."""

    number: int
    prompt: str = "a person smiles in red"

    @property
    def name(self) -> str:
        return f"drawn {self.number}"

    @property
    def person(self) -> FakeCase:
        return self

    @property
    def scene(self) -> FakeCase:
        return self

    def attributes(self) -> dict[str, str]:
        return {"hue": ("red", "green", "blue")[self.number]}

    def labels(self) -> dict[str, str]:
        return {"colour": "red", "end": "dark"}

    def donor(self) -> FakeCase:
        return FakeCase((self.number + 1) % GALLERY_SIZE)

    def portrait(self) -> Pixels:
        return drawn_portrait(self.number, 192, face=0.6, centre=(0.5, 0.5))

    other_portrait = portrait


@pytest.fixture(scope="module")
def folder(judge_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The judges with a person judge whose attribute `hue` is the brightest channel of a face."""
    out = tmp_path_factory.mktemp("with-person-judge") / "judges"
    shutil.copytree(judge_folder, out)
    graph = Graph()
    graph.add("ReduceMean", "faces", axes=[2, 3], keepdims=0, output="hue")
    graph.save(out / "person.onnx", {"faces": ["n", 3, 112, 112]}, {"hue": ["n", 3]})
    (out / "person.json").write_text(json.dumps({"hue": ["red", "green", "blue"]}))
    return out


@pytest.fixture(scope="module")
def video() -> Frames:
    """The first person, [4, 96, 96, 3]; the last frame shows nobody."""
    shown = [drawn_portrait(0, 96, face=0.6, centre=(0.45 + 0.03 * step, 0.5)) for step in range(3)]
    return np.stack([*shown, np.full((96, 96, 3), 90, np.uint8)])


@pytest.fixture(scope="module")
def measurer(folder: Path) -> Measurer:
    return Measurer(folder, None)


@pytest.fixture(scope="module")
def measured(measurer: Measurer, video: Frames) -> dict[int, Measurements]:
    """Measurements of the same video for the cases of two people."""
    gallery = measurer.gallery([FakeCase(number) for number in range(GALLERY_SIZE)])  # type: ignore[misc]
    assert gallery.shape[0] == GALLERY_SIZE
    reference = ReferenceVideo(2 * LATENTS, video)
    return {
        number: measurer(FakeCase(number), video, gallery, LATENTS, reference)  # type: ignore[arg-type]
        for number in (0, 2)
    }


def test_a_video_is_most_similar_to_the_person_it_shows(measured: dict[int, Measurements]) -> None:
    right, wrong = measured[0], measured[2]
    assert right["faces_found"] == wrong["faces_found"] == 0.75
    assert right["rank1"] is True and wrong["rank1"] is False
    assert right["facesim_arc"] > right["strangers"]
    # The donor of the second case is the person in the video.
    assert wrong["facesim_other"] == right["facesim_arc"]


def test_attributes_and_labels_are_hits_or_misses(measured: dict[int, Measurements]) -> None:
    right, wrong = measured[0], measured[2]
    assert right["person.hue"] is True and wrong["person.hue"] is False
    assert wrong["own.hue"] is False and wrong["other.hue"] is True
    assert right["prompt.end"] is not None
    assert right["prompt_accuracy"] == np.mean([right["prompt.colour"], right["prompt.end"]])


def test_distances_are_to_the_reference(measured: dict[int, Measurements]) -> None:
    assert measured[0]["latents"] == pytest.approx(0.5) and measured[0]["psnr"] == MAX_PSNR
    assert measured[0]["clip_distance"] == 0


def test_features_of_faces_are_what_fid_needs(measured: dict[int, Measurements]) -> None:
    features, portrait = np.array(measured[0]["face_features"]), np.array(measured[0]["portrait_features"])
    assert features.shape == (3, 3) and portrait.shape == (3,)
    assert measured[0]["face_distance"] == pytest.approx(((features - portrait) ** 2).sum(axis=1).mean(), abs=1e-3)


def test_every_value_survives_json(measured: dict[int, Measurements]) -> None:
    assert json.loads(json.dumps(measured[0], allow_nan=False)) == measured[0]


def test_judges_that_are_missing_are_named(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "few")
    (tmp_path / "few" / "attributes.onnx").unlink()
    with pytest.raises(CheckpointInvalid, match=r"lacks attributes\.onnx"):
        Measurer(tmp_path / "few", None)
