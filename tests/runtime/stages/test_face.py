"""The face stage: the reference's numbers, and one person for every network."""

import io
import json
import runpy
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from consisid_runtime.errors import BundleCorrupt, FaceIndexOutOfRange, MissingExtra, MultipleFaces, NoFace
from consisid_runtime.models.bisenet import BiSeNet
from consisid_runtime.models.eva_clip import EvaVision
from consisid_runtime.models.retinaface import RetinaFace
from consisid_runtime.options import Options
from consisid_runtime.plan import Geometry, Plan, plan
from consisid_runtime.signatures import CLIP, Signature
from consisid_runtime.stages.face import geometry as geometry
from consisid_runtime.stages.face.reader import Face, FaceReader, _largest_first

DATA = Path(__file__).parents[2] / "data"
MAKE = runpy.run_path(str(DATA / "record_faces.py"))
SIZES = Geometry(frames=9, height=64, width=96, spatial=8, temporal=4, patch=2, fixed_size=False)
Engine = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]
Box = tuple[float, float, float, float]


class FakeBundle:
    """Module engines from plain functions, and detector and recogniser files."""

    device = "cpu"

    def __init__(self, folder: Path, engines: dict[str, Engine], clip_size: int = 56, world: str | None = None) -> None:
        self.folder, self.engines, self.clip_size, self.world = folder, engines, clip_size, world

    def file(self, name: str) -> Path:
        return self.folder / Path(name).name

    def module(self, name: str) -> Engine:
        return self.engines[name]

    def signature(self, name: str) -> Signature:
        assert name == "clip"
        return CLIP.bind({"clip_size": self.clip_size})


def request(**options: Any) -> Plan:
    return plan(Options(**options), SIZES)


def encode(image: np.ndarray[Any, Any], **options: Any) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG", compress_level=1, **options)
    return file.getvalue()


def identity_as_tokens(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"face_tokens": inputs["identity"][:, None]}


# the reference's numbers


@pytest.fixture(scope="module")
def record() -> Any:
    return np.load(DATA / "faces.npz")


@pytest.fixture(scope="module")
def read(record: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[FaceReader, dict[str, Any]]:
    """A reader over the recorded networks, and what went between them last."""
    folder = tmp_path_factory.mktemp("faces")
    box = record["whole_box"].tolist()
    MAKE["write_detector"](folder / "detector.onnx", [(box, MAKE["points_in"](box), 0.9)])
    MAKE["write_recogniser"](folder / "recogniser.onnx")
    shapes = json.loads(str(record["shapes"]))
    aligner = RetinaFace.from_tensors(MAKE["face_heads"](MAKE["seeded"](shapes["aligner_narrow"], seed=1), scale=1e-4))
    parser = BiSeNet.from_tensors(MAKE["seeded"](shapes["parser"], seed=3))
    clip = EvaVision.from_tensors(MAKE["seeded"](shapes["clip"], seed=5))
    seen: dict[str, Any] = {}

    def parsed(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """What `seen` has for it to see."""
        seen["own_labels"] = parser(inputs["image"])
        return {"labels": seen["labels"]}

    def extractor(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen.update(inputs)
        return identity_as_tokens(inputs)

    engines: dict[str, Engine] = {
        "aligner": lambda inputs: dict(zip(("boxes", "scores", "landmarks"), aligner(inputs["image"]), strict=True)),
        "parser": parsed,
        "clip": lambda inputs: dict(zip(("clip_embedding", "clip_hidden"), clip(inputs["image"]), strict=True)),
        "local_extractor": extractor,
    }
    return FaceReader(FakeBundle(folder, engines), threads=1), seen  # type: ignore[arg-type]


def relative(ours: Tensor, theirs: np.ndarray[Any, Any]) -> float:
    return float(np.linalg.norm(ours.numpy() - theirs) / np.linalg.norm(theirs))


def test_the_whole_path_is_the_references(
    read: tuple[FaceReader, dict[str, Any]], record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two decisions turn a rounding, in which processors differ, into a step: OpenCV's warp takes coordinates to 1/32
    of a pixel, and the parser gives one label to each. Each is compared, and what follows goes on from the reference's.

    Landmarks and translation may be off by a thirtieth of the warp's step, and seven labels may differ.
    """
    transforms: list[Any] = []

    def theirs(landmarks: Any) -> Any:
        np.testing.assert_allclose(landmarks, record["whole_landmarks"][0], rtol=0, atol=1e-3)
        transforms.append(geometry.crop_transform(landmarks))
        return record["whole_transforms"][0]

    monkeypatch.setattr("consisid_runtime.stages.face.reader.crop_transform", theirs)
    reader, seen = read
    labels = seen["labels"] = torch.from_numpy(record["whole_labels"])
    face = reader(encode(MAKE["portrait"]()), request(keypoints="source"))
    (transform,) = transforms
    assert (np.abs(transform - record["whole_transforms"][0]) <= [1e-5, 1e-5, 1e-3]).all()
    assert (seen["own_labels"] != labels).float().mean() < 3e-5
    assert relative(seen["identity"][:, :512], record["whole_identity"][:, :512]) < 1e-5
    assert relative(seen["identity"][:, 512:], record["whole_identity"][:, 512:]) < 1e-5
    assert relative(seen["clip_hidden"], record["whole_hidden"]) < 1e-5
    np.testing.assert_array_equal(face.keypoints, record["whole_keypoints"])
    # By a level where OpenCV's versions interpolate.
    assert (np.abs(face.portrait[4::8, 4::8].astype(int) - record["whole_portrait"]) > 1).mean() < 1e-3


def test_where_the_detector_finds_nobody_the_path_is_still_the_references(
    read: tuple[FaceReader, dict[str, Any]], record: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`process_face_embeddings` goes on with the aligner's landmarks; its recogniser then sees the aligned crop."""
    reader, seen = read
    monkeypatch.setattr("consisid_runtime.stages.face.reader.crop_transform", lambda _: record["whole_transforms"][0])
    monkeypatch.setattr(reader._finder, "find", lambda image: [])
    seen["labels"] = torch.from_numpy(record["whole_labels"])
    bgr = np.ascontiguousarray(geometry.fit(MAKE["portrait"]())[..., ::-1])
    # The recorded aligner sees faces everywhere, of which the reference takes the central one.
    faces = [each.keypoints for each in _largest_first(reader._align(bgr))]
    central = int(np.argmin([np.abs(points - record["whole_landmarks"][0]).max() for points in faces]))
    face = reader(encode(MAKE["portrait"]()), request(keypoints="source", face_index=central))
    assert face.info["face_found_by"] == "aligner" and face.info["faces"] == len(faces)
    np.testing.assert_allclose(face.keypoints, record["whole_landmarks"][0], rtol=0, atol=1e-3)
    align_face = geometry.warp(bgr, record["whole_transforms"][0], 512, (135, 133, 132))
    assert relative(seen["identity"][:, :512], reader._finder._recogniser.get_feat(align_face)) == 0
    assert relative(seen["identity"][:, :512], record["whole_identity"][:, :512]) > 1e-3
    assert relative(seen["identity"][:, 512:], record["whole_identity"][:, 512:]) < 1e-5
    assert relative(seen["clip_hidden"], record["whole_hidden"]) < 1e-5
    assert (np.abs(face.portrait[4::8, 4::8].astype(int) - record["whole_portrait"]) > 1).mean() < 1e-3


# one person for every network

SMALL_AND_CENTRAL = ((200.0, 130.0, 260.0, 210.0), (20, 200, 40))
LARGE_AND_ASIDE = ((20.0, 40.0, 160.0, 200.0), (220, 30, 60))
NEIGHBOUR = ((150.0, 50.0, 230.0, 140.0), (10, 20, 250))


def draw(people: Sequence[tuple[Box, tuple[int, int, int]]]) -> np.ndarray[Any, Any]:
    """People are plain rectangles on grey, [320, 480, 3]."""
    image = np.full((320, 480, 3), 128, np.uint8)
    for (x0, y0, x1, y1), colour in people:
        image[int(y0) : int(y1), int(x0) : int(x1)] = colour
    return image


def aligner_seeing(boxes: Sequence[Box]) -> Engine:
    """RetinaFace's heads, encoded so that they decode to these boxes and the points in them."""

    def run(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        height, width = inputs["image"].shape[2:]
        anchors = geometry.anchors(height, width)
        heads = {name: np.zeros((len(anchors), n), np.float32) for name, n in (("boxes", 4), ("landmarks", 10))}
        scores = np.tile(np.array([1.0, 0.0], np.float32), (len(anchors), 1))
        for box in boxes:
            x0, y0, x1, y1 = np.array(box) / [width, height, width, height]
            centre, size = np.array([x0 + x1, y0 + y1]) / 2, np.array([x1 - x0, y1 - y0])
            index = int(np.abs(anchors - [*centre, *size]).sum(axis=1).argmin())
            at, edge = anchors[index, :2], anchors[index, 2:]
            points = np.array(MAKE["points_in"]((x0, y0, x1, y1)))
            heads["boxes"][index] = [*((centre - at) / edge / 0.1), *(np.log(size / edge) / 0.2)]
            heads["landmarks"][index] = ((points - at) / edge / 0.1).reshape(-1)
            scores[index] = [0.0, 1.0]
        return {name: torch.from_numpy(v)[None] for name, v in (heads | {"scores": scores}).items()}

    return run


def average_colour(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    image = inputs["image"]
    return {"clip_embedding": image.mean(dim=(2, 3)) + 2, "clip_hidden": torch.zeros(5, 1, 1, 1)}


def skin_everywhere(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {"labels": torch.ones(1, 512, 512, dtype=torch.uint8)}


@pytest.fixture
def reader_of(tmp_path: Path) -> Callable[..., FaceReader]:
    def make(
        detected: Sequence[Box], aligned: Sequence[Box] | None = None, world: str | None = None, **engines: Engine
    ) -> FaceReader:
        scale = 426 / 320  # of SCRFD, which cuts the height of its canvas to whole pixels
        faces = [([v * scale for v in box], MAKE["points_in"]([v * scale for v in box]), 0.8) for box in detected]
        MAKE["write_detector"](tmp_path / "detector.onnx", faces)
        MAKE["write_recogniser"](tmp_path / "recogniser.onnx")
        given: dict[str, Engine] = {
            "aligner": aligner_seeing(detected if aligned is None else aligned),
            "parser": skin_everywhere,
            "clip": average_colour,
            "local_extractor": identity_as_tokens,
        }
        return FaceReader(FakeBundle(tmp_path, given | engines, world=world), threads=1)  # type: ignore[arg-type]

    return make


def colour_of_crop(face: Face) -> list[int]:
    return [int(value) for value in np.median(face.portrait[200:300, 200:300].reshape(-1, 3), axis=0)]


def colour_of_embedding(face: Face) -> list[int]:
    """ArcFace's stand-in holds the red plane [16, 16] first, then green."""
    planes = face.tokens[0, 0, :512].reshape(2, 16, 16)[:, 7:9, 7:9].mean(dim=(1, 2))
    return (planes * 127.5 + 127.5).round().int().tolist()


PEOPLE = (SMALL_AND_CENTRAL, LARGE_AND_ASIDE)


@pytest.mark.parametrize(
    ("wanted", "person"),
    [(None, LARGE_AND_ASIDE), (0, LARGE_AND_ASIDE), (1, SMALL_AND_CENTRAL)],
    ids=["largest", "first", "second"],
)
def test_crop_and_embedding_are_of_the_chosen_face(
    reader_of: Callable[..., FaceReader], wanted: int | None, person: tuple[Box, tuple[int, int, int]]
) -> None:
    """The reference embeds the largest and crops the central face."""
    reader = reader_of([box for box, _ in PEOPLE])
    face = reader(encode(draw(PEOPLE)), request(face_index=wanted))
    box, colour = person
    assert np.abs(np.array(colour_of_crop(face)) - colour).max() <= 1
    assert np.abs(np.array(colour_of_embedding(face)) - colour[:2]).max() <= 1
    np.testing.assert_allclose(face.info["face_box"], box, atol=0.02)
    assert face.info["faces"] == 2 and face.info["face_index"] == (wanted or 0)
    assert face.info["face_score"] == pytest.approx(0.8) and face.info["face_found_by"] == "detector"


def test_outputs_have_their_ports_shapes(reader_of: Callable[..., FaceReader]) -> None:
    face = reader_of([LARGE_AND_ASIDE[0]])(encode(draw(PEOPLE)), request())
    assert face.tokens.dtype == torch.float32 and face.tokens.shape == (1, 1, 515)
    assert face.portrait.dtype == np.uint8 and face.portrait.shape == (512, 512, 3)
    assert face.keypoints.dtype == np.float32 and face.keypoints.shape == (5, 2)
    assert json.loads(json.dumps(face.info)) == face.info
    assert torch.allclose(face.tokens[0, 0, 512:].norm(), torch.ones(()))


def test_the_same_image_gives_the_same_bits(reader_of: Callable[..., FaceReader]) -> None:
    reader, image = reader_of([LARGE_AND_ASIDE[0]]), encode(draw(PEOPLE))
    first, second = reader(image, request()), reader(image, request())
    assert torch.equal(first.tokens, second.tokens) and np.array_equal(first.portrait, second.portrait)


@pytest.mark.parametrize(("wanted", "error", "match"), [
    ("only", MultipleFaces, "2 faces"),
    (2, FaceIndexOutOfRange, "face_index is 2, the 480×320 image has 2 faces.*use 0 to 1"),
])  # fmt: skip
def test_several_faces_where_one_was_asked_for(
    reader_of: Callable[..., FaceReader], wanted: Any, error: type[Exception], match: str
) -> None:
    with pytest.raises(error, match=match):
        reader_of([box for box, _ in PEOPLE])(encode(draw(PEOPLE)), request(face_index=wanted))


def test_only_accepts_a_single_face(reader_of: Callable[..., FaceReader]) -> None:
    face = reader_of([SMALL_AND_CENTRAL[0]])(encode(draw(PEOPLE)), request(face_index="only"))
    assert face.info["faces"] == 1


def test_no_face(reader_of: Callable[..., FaceReader]) -> None:
    with pytest.raises(NoFace, match=r"480×320.*space around the head \(a close-up"):
        reader_of([], [])(encode(draw([])), request())


@pytest.mark.parametrize(
    ("wanted", "index", "person"),
    [(None, 0, LARGE_AND_ASIDE), (0, 0, LARGE_AND_ASIDE), (1, 1, SMALL_AND_CENTRAL)],
    ids=["largest", "first", "second"],
)
def test_where_the_detector_finds_nobody_the_aligners_faces_are_numbered(
    reader_of: Callable[..., FaceReader], wanted: int | None, index: int, person: tuple[Box, tuple[int, int, int]]
) -> None:
    box, colour = person
    face = reader_of([], [box for box, _ in PEOPLE])(encode(draw(PEOPLE)), request(face_index=wanted))
    assert np.abs(np.array(colour_of_crop(face)) - colour).max() <= 1
    assert np.abs(np.array(colour_of_embedding(face)) - colour[:2]).max() <= 1
    np.testing.assert_allclose(face.info["face_box"], box, atol=0.02)
    assert (face.info["faces"], face.info["face_index"], face.info["face_found_by"]) == (2, index, "aligner")
    assert json.loads(json.dumps(face.info)) == face.info


@pytest.mark.parametrize(("wanted", "error"), [("only", MultipleFaces), (2, FaceIndexOutOfRange)])
def test_several_faces_of_the_aligner_alone(
    reader_of: Callable[..., FaceReader], wanted: Any, error: type[Exception]
) -> None:
    with pytest.raises(error, match="2 faces"):
        reader_of([], [box for box, _ in PEOPLE])(encode(draw(PEOPLE)), request(face_index=wanted))


@pytest.mark.parametrize("aligned", [[], [SMALL_AND_CENTRAL[0]]], ids=["nothing", "somebody else"])
def test_a_face_that_the_aligner_misses(reader_of: Callable[..., FaceReader], aligned: list[Box]) -> None:
    with pytest.raises(NoFace, match="not by the aligner"):
        reader_of([box for box, _ in PEOPLE], aligned)(encode(draw(PEOPLE)), request(face_index=0))


@pytest.mark.parametrize(
    ("detected", "aligned", "message"),
    [
        (
            [],
            [],
            "no face was found in the 480×320 image; this checkpoint knows drawn cats: use a picture that .* clear",
        ),
        (
            [SMALL_AND_CENTRAL[0]],
            [],
            "not by the aligner; this checkpoint knows drawn cats: use a picture that .* front",
        ),
        ([SMALL_AND_CENTRAL[0]], [(9.0, 9.0, 9.0, 9.0)], "coincide; this checkpoint knows drawn cats: use a larger"),
    ],
    ids=["nothing found", "not aligned", "no landmarks"],
)
def test_no_face_says_what_the_checkpoint_knows(
    reader_of: Callable[..., FaceReader],
    monkeypatch: pytest.MonkeyPatch,
    detected: list[Box],
    aligned: list[Box],
    message: str,
) -> None:
    if aligned:
        monkeypatch.setattr("consisid_runtime.stages.face.reader.crop_transform", lambda landmarks: None)
        aligned = detected
    with pytest.raises(NoFace, match=message):
        reader_of(detected, aligned, world="drawn cats")(encode(draw([])), request())


def test_an_overlapping_neighbour_never_stands_in(reader_of: Callable[..., FaceReader]) -> None:
    people = (LARGE_AND_ASIDE, NEIGHBOUR)
    assert geometry.overlaps(*(np.array([box], np.float32) for box, _ in people)) > 0
    reader = reader_of([box for box, _ in people], [NEIGHBOUR[0]])
    with pytest.raises(NoFace, match=r"face 0 .* not by the aligner"):
        reader(encode(draw(people)), request())
    assert (
        np.abs(np.array(colour_of_crop(reader(encode(draw(people)), request(face_index=1)))) - NEIGHBOUR[1]).max() <= 1
    )


def test_background_is_white_for_crop_and_clip(reader_of: Callable[..., FaceReader]) -> None:
    """Every label but face and hair is background; CLIP sees grey."""
    labels = torch.arange(19, dtype=torch.uint8).repeat_interleave(27)[:512].expand(512, 512)[None]
    seen: list[Tensor] = []

    def clip(inputs: Mapping[str, Tensor]) -> dict[str, Tensor]:
        seen.append(inputs["image"])
        return average_colour(inputs)

    reader = reader_of([LARGE_AND_ASIDE[0]], parser=lambda inputs: {"labels": labels}, clip=clip)
    face = reader(encode(draw([LARGE_AND_ASIDE])), request())
    white = (face.portrait[256] == 255).all(axis=1)
    assert {label for label in range(19) if white[27 * label + 3 : 27 * label + 20].all()} == {
        0, 7, 8, 9, 14, 15, 16, 18,
    }  # fmt: skip
    std = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)
    grey = seen[0][0] * std + torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
    assert seen[0].shape == (1, 3, 56, 56)
    torch.testing.assert_close(grey[0], grey[2])
    red, green, blue = LARGE_AND_ASIDE[1]
    assert float(grey.min()) == pytest.approx((0.299 * red + 0.587 * green + 0.114 * blue) / 255, abs=0.06)


def test_keypoints_follow_the_crop_unless_the_source_is_asked_for(reader_of: Callable[..., FaceReader]) -> None:
    box = LARGE_AND_ASIDE[0]
    reader, image = reader_of([box]), encode(draw(PEOPLE))
    source = reader(image, request(keypoints="source")).keypoints
    np.testing.assert_allclose(source, MAKE["points_in"](box), atol=0.01)
    matrix = geometry.crop_transform(np.array(MAKE["points_in"](box), np.float32))
    assert matrix is not None
    np.testing.assert_allclose(reader(image, request()).keypoints, geometry.transform(source, matrix), atol=0.01)


def test_the_box_is_in_pixels_of_the_upright_original(reader_of: Callable[..., FaceReader]) -> None:
    box = (60.0, 40.0, 200.0, 200.0)
    image = draw([(box, (1, 2, 3))]).repeat(4, axis=0).repeat(4, axis=1)  # 1920 wide: scaled down to 1024
    exif = Image.Exif()
    exif[0x0112] = 8
    reader = reader_of([box], [tuple(v * 1024 / 480 for v in box)])
    face = reader(encode(np.rot90(image, -1), exif=exif), request())
    np.testing.assert_allclose(face.info["face_box"], np.array(box) * 4, atol=4)


def test_insightface_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "insightface.model_zoo", None)
    with pytest.raises(MissingExtra, match=r"pip install 'consisid-runtime\[cpu\]'"):
        FaceReader(FakeBundle(tmp_path, {}))  # type: ignore[arg-type]


def test_a_file_of_another_kind_is_refused(tmp_path: Path) -> None:
    MAKE["write_recogniser"](tmp_path / "detector.onnx")
    MAKE["write_recogniser"](tmp_path / "recogniser.onnx")
    with pytest.raises(BundleCorrupt, match="no face detection network"):
        FaceReader(FakeBundle(tmp_path, {}))  # type: ignore[arg-type]
