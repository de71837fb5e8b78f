"""Measures the trained detector, aligner and parser on held-out people, with the runtime's code."""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from consisid_nano.untrained.recogniser import write_recogniser
from consisid_nano.world import HELD_OUT_PEOPLE, clip, person, portrait, scene
from consisid_nano.world.canvas import Pixels
from consisid_runtime.models.bisenet import BiSeNet
from consisid_runtime.models.retinaface import RetinaFace
from consisid_runtime.stages.face.finder import FaceFinder
from consisid_runtime.stages.face.geometry import ALIGNER_MEAN, Floats, decode, overlaps
from consisid_training.data.clips import BACKGROUND, aligned_crop, noisy_landmarks
from consisid_training.data.pictures import (
    HELD_OUT_PHOTOGRAPHS,
    PHOTOGRAPHS,
    FacePicture,
    draw_without_faces,
    lfw,
    photograph,
)
from consisid_training.faces.parser import LABELS, normalise

Reader = Callable[[Pixels], tuple[Floats, Floats]]
"""RGB [H, W, 3] → boxes [N, 4] and keypoints [N, 5, 2]."""

_SAME = 0.5  # least intersection over union of a box with its face


def check(detector: Path, aligner: Path, parser: Path, people: int = 64) -> dict[str, Any]:
    """Return every measure by name, over the first `people` held-out people. Distances are in eye distances."""
    with tempfile.TemporaryDirectory() as folder:
        recogniser = Path(folder) / "recogniser.onnx"
        write_recogniser(recogniser, seed=0)
        finder = FaceFinder(detector, recogniser, device="cpu", threads=1)
    readers = {"detector": _detector(finder), "aligner": _aligner(RetinaFace.from_tensors(_load(aligner)))}
    sets = _pictures(people)
    found: dict[str, Any] = {}
    for name, read in readers.items():
        found[name] = {kind: faces(read, pictures) for kind, pictures in sets.items()}
        found[name] |= {kind: false_positives(read, pictures) for kind, pictures in _negatives().items()}
    found["parser"] = masks(BiSeNet.from_tensors(_load(parser)), people)
    return found


def faces(read: Reader, pictures: Sequence[FacePicture]) -> dict[str, float]:
    """Return the share of faces found, of surplus finds, and the error of the keypoints."""
    distances: list[NDArray[Any]] = []
    seen = surplus = 0
    for picture in pictures:
        boxes, points = read(picture.pixels)
        overlap = overlaps(picture.boxes, boxes) if len(boxes) else np.zeros((len(picture.boxes), 0))
        hits = [row.argmax() if row.size and row.max() > _SAME else None for row in overlap]
        seen += sum(hit is not None for hit in hits)
        surplus += len(boxes) - len({hit for hit in hits if hit is not None})
        for face, hit in enumerate(hits):
            if hit is not None:
                apart = np.linalg.norm(picture.keypoints[face, 0] - picture.keypoints[face, 1])
                distances.append(np.linalg.norm(points[hit] - picture.keypoints[face], axis=1) / apart)
    total = sum(len(picture.boxes) for picture in pictures)
    off = np.array(distances) if distances else np.full((1, 5), np.nan)
    return {
        "faces": total,
        "found": seen / total,
        "surplus": surplus / total,
        "points_mean": round(float(off.mean()), 4),
        "points_95": round(float(np.quantile(off, 0.95)), 4),
    }


def false_positives(read: Reader, pictures: Sequence[Pixels]) -> dict[str, float]:
    counts = [len(read(picture)[0]) for picture in pictures]
    return {"pictures": len(counts), "with_a_face": sum(count > 0 for count in counts)}


def masks(network: BiSeNet, people: int) -> dict[str, float]:
    """Return the share of pixels with the right label, and rightly background or not, and the IoU of labels."""
    counts = np.zeros((LABELS, LABELS), np.int64)
    for seed in range(HELD_OUT_PEOPLE, HELD_OUT_PEOPLE + people):
        picture = portrait(person(seed), seed)
        pixels, labels = aligned_crop(picture, noisy_landmarks(picture, np.random.default_rng([9, seed])))
        answer = network(normalise(pixels[None]))[0].numpy()
        counts += np.bincount(
            labels.reshape(-1).astype(int) * LABELS + answer.reshape(-1), minlength=LABELS**2
        ).reshape(LABELS, LABELS)
    background = np.isin(np.arange(LABELS), BACKGROUND)
    right = counts[np.ix_(background, background)].sum() + counts[np.ix_(~background, ~background)].sum()
    present = counts.sum(axis=1) > 0
    each = np.diag(counts) / np.maximum(1, counts.sum(axis=0) + counts.sum(axis=1) - np.diag(counts))
    return {
        "background": round(float(right / counts.sum()), 5),
        "label": round(float(np.trace(counts) / counts.sum()), 5),
        "mean_iou": round(float(each[present].mean()), 4),
        **{f"iou_{label}": round(float(each[label]), 4) for label in np.flatnonzero(present)},
    }


def _pictures(people: int) -> dict[str, list[FacePicture]]:
    seeds = range(HELD_OUT_PEOPLE, HELD_OUT_PEOPLE + people)

    def portraits(size: int) -> list[FacePicture]:
        drawn = [portrait(person(seed), seed, size) for seed in seeds]
        return [FacePicture(picture.pixels, picture.box[None], picture.keypoints[None]) for picture in drawn]

    frames = []
    for seed in seeds:
        video = clip(person(seed), scene(seed, held_out=True), seed)
        for frame in (0, 8, 16):
            frames.append(FacePicture(video.pixels[frame], video.boxes[[frame]], video.keypoints[[frame]]))
    blurred = [FacePicture(_blurred(picture.pixels), picture.boxes, picture.keypoints) for picture in frames]
    sets = {f"portraits_{size}": portraits(size) for size in (200, 320, 512, 768, 1024)}
    pairs = [_beside(a, b) for a, b in zip(sets["portraits_320"][::2], sets["portraits_320"][1::2], strict=True)]
    return {**sets, "pairs": pairs, "frames": frames, "frames_blurred": blurred}


def _blurred(pixels: Pixels) -> Pixels:
    return np.asarray(cv2.GaussianBlur(pixels, (0, 0), 1.0), np.uint8)


def _beside(left: FacePicture, right: FacePicture) -> FacePicture:
    width = left.pixels.shape[1]
    shift = np.array((width, 0), np.float32)
    return FacePicture(
        np.concatenate([left.pixels, right.pixels], axis=1),
        np.concatenate([left.boxes, right.boxes + np.tile(shift, 2)]),
        np.concatenate([left.keypoints, right.keypoints + shift]),
    )


def _negatives() -> dict[str, list[Pixels]]:
    rng = np.random.default_rng(8)

    def small(pictures: Sequence[Pixels]) -> list[Pixels]:
        return [np.asarray(cv2.resize(picture, (256, 256)), np.uint8) for picture in pictures]

    return {
        "photographs_of_training": [photograph(name) for name in PHOTOGRAPHS],
        "photographs_held_out": [photograph(name) for name in HELD_OUT_PHOTOGRAPHS],
        "lfw_held_out": small(lfw(held_out=True)),
        "nobody": [draw_without_faces(rng, 256, 256).pixels for _ in range(100)],
    }


def _detector(finder: FaceFinder) -> Reader:
    def read(pixels: Pixels) -> tuple[Floats, Floats]:
        found = finder.find(np.ascontiguousarray(pixels[..., ::-1]))
        boxes, points = [face.box for face in found], [face.keypoints for face in found]
        return np.array(boxes, np.float32).reshape(-1, 4), np.array(points, np.float32).reshape(-1, 5, 2)

    return read


def _aligner(network: RetinaFace) -> Reader:
    def read(pixels: Pixels) -> tuple[Floats, Floats]:
        bgr = pixels[..., ::-1].astype(np.float32) - np.array(ALIGNER_MEAN, np.float32)
        heads = network(torch.from_numpy(bgr).permute(2, 0, 1)[None])
        found = decode(*(head[0].numpy() for head in heads), *pixels.shape[:2])
        return found.boxes, found.landmarks

    return read


def _load(path: Path) -> dict[str, torch.Tensor]:
    tensors: dict[str, torch.Tensor] = torch.load(path, weights_only=True)
    return tensors


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("detector", type=Path)
    arguments.add_argument("aligner", type=Path)
    arguments.add_argument("parser", type=Path)
    arguments.add_argument("--people", type=int, default=64)
    chosen = arguments.parse_args()
    print(json.dumps(check(chosen.detector, chosen.aligner, chosen.parser, chosen.people), indent=1))
