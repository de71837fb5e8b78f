"""The untrained checkpoint's face networks, run by the code that runs a real checkpoint's."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from consisid_export.onnx.sample_portrait import drawn_portrait
from consisid_nano.untrained.configs import CLIP_OUT, CLIP_WIDTH
from consisid_nano.untrained.faces import write_face_encoder
from consisid_runtime.models.bisenet import BiSeNet
from consisid_runtime.models.eva_clip import EvaVision
from consisid_runtime.models.retinaface import RetinaFace
from consisid_runtime.stages.face.finder import FaceFinder, Found
from consisid_runtime.stages.face.geometry import ALIGNER_MEAN, Detections, Floats, decode, overlaps
from consisid_runtime.stages.face.image import Pixels

DETECTOR, RECOGNISER = "models/antelopev2/scrfd_10g_bnkps.onnx", "models/antelopev2/glintr100.onnx"
ALIGNER, PARSER, CLIP = "detection_Resnet50_Final.pth", "parsing_bisenet.pth", "EVA02_CLIP_L_336_psz14_s6B.pt"
LIMIT = 6_000_000

ASTRONAUT: Pixels = data.astronaut()  # type: ignore[no-untyped-call]
# Measured by eye.
ASTRONAUT_BOX = np.array([[179.0, 68.0, 271.0, 178.0]], np.float32)
ASTRONAUT_POINTS = np.array([(202, 101), (247, 103), (223, 127), (205, 143), (244, 143)])
EYE_DISTANCE = 45.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("untrained") / "face_encoder"
    write_face_encoder(path, seed=0)
    return path


@pytest.fixture(scope="module")
def finder(folder: Path) -> FaceFinder:
    return FaceFinder(folder / DETECTOR, folder / RECOGNISER, threads=1)


@pytest.fixture(scope="module")
def aligner(folder: Path) -> RetinaFace:
    return RetinaFace.from_tensors(torch.load(folder / ALIGNER, weights_only=True))


def find(finder: FaceFinder, rgb: Pixels) -> list[Found]:
    return finder.find(np.ascontiguousarray(rgb[..., ::-1]))


def align(aligner: RetinaFace, rgb: Pixels) -> Detections:
    bgr = rgb[..., ::-1].astype(np.float32) - np.array(ALIGNER_MEAN, np.float32)
    heads = aligner(torch.from_numpy(bgr).permute(2, 0, 1)[None])
    return decode(*(head[0].numpy() for head in heads), *rgb.shape[:2])


def pair() -> Pixels:
    return np.concatenate([drawn_portrait(1, 384), drawn_portrait(3, 384)], axis=1)


def test_same_seed_same_bytes_and_small(folder: Path, tmp_path: Path) -> None:
    write_face_encoder(tmp_path / "again", seed=0)
    write_face_encoder(tmp_path / "other", seed=1)
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert {str(file) for file in files} == {DETECTOR, RECOGNISER, ALIGNER, PARSER, CLIP}
    same = {str(file): (tmp_path / "again" / file).read_bytes() == (folder / file).read_bytes() for file in files}
    assert all(same.values()), same
    differ = {str(f) for f in files if (tmp_path / "other" / f).read_bytes() != (folder / f).read_bytes()}
    assert differ == {RECOGNISER, CLIP}
    assert sum((folder / file).stat().st_size for file in files) < LIMIT


@pytest.mark.parametrize("seed", range(8))
def test_finds_a_drawn_portrait(finder: FaceFinder, aligner: RetinaFace, seed: int) -> None:
    portrait = drawn_portrait(seed, 512)
    faces, aligned = find(finder, portrait), align(aligner, portrait)
    assert len(faces) == len(aligned.boxes) == 1
    assert overlaps(faces[0].box[None], aligned.boxes)[0, 0] > 0.5


@pytest.mark.parametrize("share", [1 / 6, 0.25, 0.4, 0.6, 0.8])
def test_finds_faces_of_every_size(finder: FaceFinder, aligner: RetinaFace, share: float) -> None:
    portrait = drawn_portrait(3, 512, face=share, centre=(0.55, 0.5))
    eyes = np.array(((0.55 - 0.18 * share, 0.5 - 0.03 * share), (0.55 + 0.18 * share, 0.5 - 0.03 * share))) * 512
    distance = 0.36 * share * 512
    (face,), aligned = find(finder, portrait), align(aligner, portrait)
    assert np.abs(face.keypoints[:2] - eyes).max() < 0.2 * distance
    assert len(aligned.boxes) == 1
    assert np.abs(aligned.landmarks[0, :2] - eyes).max() < 0.3 * distance


@pytest.mark.parametrize("scale", [0.8, 1.0, 1.3, 1.7])
def test_finds_the_face_in_a_photograph(finder: FaceFinder, aligner: RetinaFace, scale: float) -> None:
    size = round(512 * scale)
    photo = np.asarray(Image.fromarray(ASTRONAUT).resize((size, size), Image.Resampling.BICUBIC))
    (face,), aligned = find(finder, photo), align(aligner, photo)
    assert overlaps(face.box[None] / scale, ASTRONAUT_BOX)[0, 0] > 0.6
    assert np.abs(face.keypoints / scale - ASTRONAUT_POINTS).max() < 0.3 * EYE_DISTANCE
    overlap = overlaps(face.box[None], aligned.boxes)[0]
    assert overlap.max() > 0.5
    assert np.abs(aligned.landmarks[overlap.argmax()] / scale - ASTRONAUT_POINTS).max() < 0.4 * EYE_DISTANCE
    if scale == 1.0:
        assert len(aligned.boxes) == 1


def test_two_portraits_are_two_faces(finder: FaceFinder, aligner: RetinaFace) -> None:
    faces, aligned = find(finder, pair()), align(aligner, pair())
    assert len(faces) == len(aligned.boxes) == 2
    assert (overlaps(np.stack([face.box for face in faces]), aligned.boxes).max(axis=1) > 0.5).all()


@pytest.mark.parametrize("name", ["coffee", "chelsea", "rocket", "black", "grey", "skin", "noise", "head over heels"])
def test_finds_no_face_in_other_pictures(finder: FaceFinder, name: str) -> None:
    flat = np.ones((320, 480, 3), np.uint8)
    pictures: dict[str, Pixels] = {
        "black": np.zeros_like(flat),
        "grey": np.uint8(128) * flat,
        "skin": flat * np.array((220, 170, 140), np.uint8),
        "noise": np.random.default_rng(0).integers(0, 256, flat.shape, dtype=np.uint8),
        "head over heels": drawn_portrait(0, 384)[::-1],
    }
    assert find(finder, pictures[name] if name in pictures else getattr(data, name)()) == []


def test_embeddings_differ_between_crops(finder: FaceFinder) -> None:
    def embed(portrait: Pixels) -> Floats:
        (face,) = find(finder, portrait)
        embedding = finder.embed(np.ascontiguousarray(portrait[..., ::-1]), face.keypoints)
        assert embedding.shape == (512,)
        return np.asarray(embedding / np.linalg.norm(embedding))

    people = np.stack([embed(drawn_portrait(seed, 512)) for seed in range(4)] + [embed(ASTRONAUT)])
    cosines = people @ people.T
    assert cosines[~np.eye(len(people), dtype=bool)].max() < 0.98
    assert np.array_equal(embed(ASTRONAUT), people[-1])


def test_parser_keeps_the_face_and_drops_the_rest(folder: Path) -> None:
    parser = BiSeNet.from_tensors(torch.load(folder / PARSER, weights_only=True))
    portrait = torch.from_numpy(drawn_portrait(1, 512, face=0.7, centre=(0.5, 0.5)).copy()).permute(2, 0, 1)[None] / 255
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))
    labels = parser((portrait - mean.view(3, 1, 1)) / std.view(3, 1, 1))[0]
    cheek, eye, mouth = (280, 200), (247, 192), (367, 256)
    assert [int(labels[place]) for place in (cheek, eye, mouth)] == [1, 1, 1]
    assert labels[:60].max() == labels[:, :60].max() == labels[:, -60:].max() == 0


def test_clip_tower_depends_on_its_image(folder: Path) -> None:
    tower = EvaVision.from_tensors(torch.load(folder / CLIP, weights_only=True))
    images = torch.randn(2, 1, 3, 336, 336, generator=torch.Generator().manual_seed(0))
    (one, hidden), (other, _) = (tower(image) for image in images)
    assert one.shape == (1, CLIP_OUT) and hidden.shape == (5, 1, 577, CLIP_WIDTH)
    assert torch.linalg.norm(one - other) > 0.01 * torch.linalg.norm(one)
    assert all(torch.linalg.norm(b - a) > 0.1 * torch.linalg.norm(a) for a, b in pairwise(hidden))


def test_drawn_portraits_repeat_and_vary() -> None:
    assert np.array_equal(drawn_portrait(5, 96), drawn_portrait(5, 96))
    assert drawn_portrait(5, 96).shape == (96, 96, 3) and drawn_portrait(5, 96).dtype == np.uint8
    assert len({drawn_portrait(seed, 96).tobytes() for seed in range(16)}) == 16
