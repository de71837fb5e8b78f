"""Boxes, anchors and alignment against what facexlib and insightface computed."""

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from skimage.transform import SimilarityTransform

from consisid_runtime.stages.face import geometry as geometry

DATA = Path(__file__).parents[2] / "data"
MAKE = runpy.run_path(str(DATA / "record_faces.py"))
POINTS = np.array([[140, 120], [212, 128], [176, 166], [150, 210], [204, 214]], np.float32)


@pytest.fixture(scope="module")
def record() -> Any:
    return np.load(DATA / "faces.npz")


def test_decoding_and_thinning_is_facexlibs(record: Any) -> None:
    boxes, scores, landmarks = (heads[0].numpy() for heads in MAKE["raw_heads"](160, 224, seed=7))
    found = geometry.decode(boxes, scores, landmarks, 160, 224)
    theirs = record["detections"]
    assert found.boxes.shape == (len(theirs), 4) and found.landmarks.shape == (len(theirs), 5, 2)
    np.testing.assert_allclose(found.scores, theirs[:, 4], rtol=1e-6)
    np.testing.assert_allclose(found.boxes, theirs[:, :4], rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(found.landmarks.reshape(-1, 10), theirs[:, 5:], rtol=1e-5, atol=1e-3)


def test_decoding_nothing_confident_gives_no_faces() -> None:
    count = len(geometry.anchors(64, 96))
    boxes, scores, landmarks = (np.zeros((count, values), np.float32) for values in (4, 2, 10))
    found = geometry.decode(boxes, scores, landmarks, 64, 96)
    assert [part.shape for part in found] == [(0, 4), (0,), (0, 5, 2)]


@pytest.mark.parametrize(("height", "width"), [(97, 131), (64, 64), (160, 33)])
def test_anchors_cover_every_cell(height: int, width: int) -> None:
    anchors = geometry.anchors(height, width) * np.array([width, height, width, height], np.float32)
    assert len(anchors) == sum(2 * -(-height // s) * -(-width // s) for s in (8, 16, 32))
    np.testing.assert_allclose(anchors[:3], [[4, 4, 16, 16], [4, 4, 32, 32], [12, 4, 16, 16]], rtol=1e-6)
    np.testing.assert_allclose(anchors[-1, 2:], 512, rtol=1e-6)


def test_alignment_is_facexlibs(record: Any) -> None:
    """The second face lies partly outside: what is beyond the edge is grey."""
    image = MAKE["photo"](300, 400, 9)
    for points, transform, crop in zip((POINTS, POINTS * 0.4 - 20), record["transforms"], record["crops"], strict=True):
        matrix = geometry.crop_transform(points)
        assert matrix is not None
        np.testing.assert_allclose(matrix, transform, rtol=1e-4)
        ours = geometry.warp(image, matrix, geometry.CROP, geometry.CROP_BORDER)[8::16, 8::16].astype(int)
        # OpenCV's versions differ by 5e-6 in the transform, hence by a level where two colours meet.
        assert np.abs(ours - crop).max() <= 1
    assert (crop == (135, 133, 132)).all(axis=2).mean() > 0.2


def test_coinciding_landmarks_have_no_alignment() -> None:
    assert geometry.crop_transform(np.ones((5, 2), np.float32)) is None


@pytest.mark.parametrize("edge", [112, 224])
def test_arcface_alignment_is_insightfaces(edge: int) -> None:
    from insightface.utils.face_align import arcface_dst

    theirs = SimilarityTransform.from_estimate(POINTS, arcface_dst * (edge / 112)).params[:2]
    np.testing.assert_allclose(geometry.arcface_transform(POINTS, edge), theirs, rtol=1e-6)


def test_overlap_of_boxes() -> None:
    a = np.array([[0, 0, 10, 10]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [10, 10, 20, 20], [3, 3, 3, 9]], np.float32)
    np.testing.assert_allclose(geometry.overlaps(a, b), [[1, 1 / 3, 0, 0]], rtol=1e-6)


def test_suppression_compares_with_what_was_kept_only() -> None:
    """A box that overlaps only a suppressed one stays."""
    chain = np.array([[0, 0, 10, 10], [4, 0, 14, 10], [8, 0, 18, 10]], np.float32)
    assert geometry.suppress(chain).tolist() == [0, 2]


@pytest.mark.parametrize(
    ("height", "width", "fitted"), [(1536, 1224, (1024, 816)), (1025, 333, (1024, 332)), (1024, 900, (1024, 900))]
)
def test_long_edge_becomes_1024(height: int, width: int, fitted: tuple[int, int]) -> None:
    assert geometry.fit(np.zeros((height, width, 3), np.uint8)).shape == (*fitted, 3)


def test_points_move_with_the_image() -> None:
    matrix = geometry.crop_transform(POINTS)
    assert matrix is not None
    moved = geometry.transform(POINTS, matrix)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved[0], matrix @ [140, 120, 1], rtol=1e-6)
