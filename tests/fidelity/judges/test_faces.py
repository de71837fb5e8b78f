from pathlib import Path

import numpy as np
import pytest

from consisid_fidelity.judges import faces as module
from consisid_fidelity.judges.faces import (
    FaceJudge,
    Faces,
    aligned_faces,
    published_similarity,
    sample,
    similarities,
)
from consisid_runtime.errors import BundleCorrupt, CheckpointInvalid, NoFace
from consisid_runtime.mp4 import Frames
from consisid_runtime.stages.face.finder import FaceFinder, Found


@pytest.fixture(scope="module")
def judge(judge_folder: Path) -> FaceJudge:
    files = {"arc": judge_folder / "arcface.onnx", "cur": judge_folder / "curricular.onnx"}
    return FaceJudge(judge_folder / "detector.onnx", files, "cpu", threads=1)


@pytest.fixture(scope="module")
def seen(judge: FaceJudge, person_video: Frames) -> Faces:
    return judge.read(person_video)


def test_a_face_is_found_where_it_is_drawn_and_nowhere_else(seen: Faces) -> None:
    assert seen.found.tolist() == [True, True, True, False]
    middles = seen.boxes[:3, 0::2].mean(axis=1)
    # Tolerance of half a step: the hand-built detector is coarse but has to follow the face.
    assert np.abs(middles - (0.45 + 0.03 * np.arange(3)) * 96).max() < 0.015 * 96
    assert np.isnan(seen.boxes[3]).all() and np.isnan(seen.keypoints[3]).all()


def test_embeddings_are_the_recognisers_own_of_length_one(
    judge_folder: Path, seen: Faces, person_video: Frames
) -> None:
    for name, file in (("arc", "arcface.onnx"), ("cur", "curricular.onnx")):
        finder = FaceFinder(judge_folder / "detector.onnx", judge_folder / file, "cpu", threads=1)
        bgr = np.ascontiguousarray(person_video[1][..., ::-1])
        raw = finder.embed(bgr, finder.find(bgr)[0].keypoints)
        assert np.allclose(seen.embeddings[name][1], raw / np.linalg.norm(raw), atol=1e-6)
        assert np.array_equal(seen.embeddings[name][3], np.zeros(512))
    assert not np.allclose(seen.embeddings["arc"], seen.embeddings["cur"])


def test_a_picture_is_searched_once_for_all_recognisers(
    judge: FaceJudge, person_video: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    searches: list[tuple[int, ...]] = []
    find = FaceFinder.find

    def counted(self: FaceFinder, image: Frames) -> object:
        searches.append(image.shape)
        return find(self, image)

    monkeypatch.setattr(FaceFinder, "find", counted)
    judge.read(person_video)
    # The empty frame is searched again, with the border.
    assert searches == [(96, 96, 3)] * 4 + [(144, 144, 3)]


def test_a_face_that_needs_the_border_is_placed_in_the_picture(
    judge: FaceJudge, person_video: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = person_video[0, :, :64]
    points = np.array([[20, 30], [50, 30], [35, 45], [25, 60], [45, 60]], np.float32)
    shown: list[Frames] = []

    def only_with_border(_: FaceFinder, image: Frames) -> list[Found]:
        shown.append(image)
        wide = image.shape[:2] == (96 + 2 * 24, 64 + 2 * 16)
        return [Found(np.array([26, 34, 76, 104], np.float32), 0.9, points + np.float32((16, 24)))] if wide else []

    monkeypatch.setattr(FaceFinder, "find", only_with_border)
    found = judge.read(picture[None])
    assert found.boxes[0].tolist() == [10, 10, 60, 80]
    assert np.array_equal(found.keypoints[0], points)
    assert np.array_equal(shown[1][24:-24, 16:-16], shown[0]) and (shown[1][:24] == 128).all()


def test_similarity_is_highest_to_oneself(judge: FaceJudge, portrait_pixels: Frames, person_video: Frames) -> None:
    portrait = judge.read_portrait(portrait_pixels, "portrait")
    assert similarities(portrait, portrait, "arc")[0] == pytest.approx(1, abs=1e-6)
    cosines = similarities(judge.read(person_video), portrait, "arc")
    assert cosines[3] == 0.0 and (cosines[:3] < 1).all() and (cosines[:3] > 0).all()


def test_the_published_mean_ignores_empty_frames_and_clamps_negatives() -> None:
    rows = np.array([[1, 0], [-1, 0], [0, 0], [0.6, 0.8]], np.float32)
    boxes = np.where(np.arange(4)[:, None] == 2, np.nan, np.ones((4, 4))).astype(np.float32)
    video = Faces(boxes, np.ones((4, 5, 2), np.float32), {"arc": rows})
    portrait = Faces(boxes[:1], np.ones((1, 5, 2), np.float32), {"arc": rows[:1]})
    assert similarities(video, portrait, "arc").mean() == pytest.approx((1 - 1 + 0 + 0.6) / 4)
    assert published_similarity(video, portrait, "arc") == pytest.approx((1 + 0 + 0.6) / 3)
    empty = Faces(np.full((2, 4), np.nan, np.float32), np.ones((2, 5, 2), np.float32), {"arc": np.zeros((2, 2))})
    assert published_similarity(empty, portrait, "arc") == 0.0


def test_a_video_without_any_face(judge: FaceJudge) -> None:
    nobody = judge.read(np.full((2, 96, 96, 3), 90, np.uint8))
    assert not nobody.found.any()
    assert all(rows.shape == (2, 512) and not rows.any() for rows in nobody.embeddings.values())
    assert aligned_faces(np.full((2, 96, 96, 3), 90, np.uint8), nobody, 16, 12).shape == (0, 16, 12, 3)


def test_a_portrait_without_a_face_is_named(judge: FaceJudge) -> None:
    with pytest.raises(NoFace, match=r"grandma\.png shows no face"):
        judge.read_portrait(np.full((96, 96, 3), 90, np.uint8), "grandma.png")


def test_aligned_faces_follow_arcfaces_template() -> None:
    # ArcFace's template for 112 × 112, `arcface_dst` in insightface.
    template = np.array([[38.29, 51.7], [73.53, 51.5], [56.03, 71.74], [41.55, 92.37], [70.73, 92.2]])
    frames = np.zeros((3, 200, 300, 3), np.uint8)
    keypoints = np.full((3, 5, 2), np.nan, np.float32)
    for index, (scale, x, y) in enumerate(((1.0, 20, 30), (1.5, 100, 10))):
        keypoints[index] = template * scale + (x, y)
        left, top = keypoints[index, 0]
        frames[index, round(top) - 2 : round(top) + 3, round(left) - 2 : round(left) + 3] = (255, 0, 0)
    boxes = np.where(np.isnan(keypoints[:, 0, :1]), np.nan, np.ones((3, 4))).astype(np.float32)
    crops = aligned_faces(frames, Faces(boxes, keypoints, {}), 56, 56)
    assert crops.shape == (2, 56, 56, 3)
    for crop in crops:
        assert not crop[..., 1:].any()
        y, x = (np.average(axis, weights=crop[..., 0]) for axis in np.mgrid[:56, :56])
        assert np.hypot(x - 38.29 / 2, y - 51.7 / 2) < 0.75  # pixels


def test_frames_are_spaced_evenly() -> None:
    assert sample(49, 16).tolist() == [0, 3, 6, 9, 12, 16, 19, 22, 25, 28, 32, 35, 38, 41, 44, 48]
    assert sample(5, None).tolist() == sample(5, 9).tolist() == [0, 1, 2, 3, 4]
    assert sample(5, 1).tolist() == [0]
    assert len(sample(100, module.PUBLISHED_FRAMES)) == 16


def test_other_files_are_refused(judge_folder: Path, tmp_path: Path) -> None:
    broken = tmp_path / "arcface.onnx"
    broken.write_bytes(b"not a network")
    with pytest.raises(CheckpointInvalid, match=r"arcface\.onnx is not a face network"):
        FaceJudge(judge_folder / "detector.onnx", {"arc": broken}, "cpu", 1)
    with pytest.raises(BundleCorrupt, match="no face detection network"):
        FaceJudge(judge_folder / "arcface.onnx", {"arc": judge_folder / "arcface.onnx"}, "cpu", 1)
    with pytest.raises(ValueError, match="at least one recogniser"):
        FaceJudge(judge_folder / "detector.onnx", {}, "cpu", 1)
