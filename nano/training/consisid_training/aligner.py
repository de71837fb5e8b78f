"""Trains the aligner, RetinaFace under facexlib's names: five landmarks of each face, in pictures of any size."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
from torch import Tensor, nn

from consisid_runtime.face_geometry import ALIGNER_MEAN
from consisid_runtime.face_geometry import anchors as grid
from consisid_runtime.models.retinaface import RetinaFace
from consisid_training.anchors import Anchors, loss, wanted
from consisid_training.norms import settle
from consisid_training.official import Names, save
from consisid_training.pictures import Shot, nobody, people, worn
from consisid_training.stage import Stage, weights

SEED = 42
_STEM = 12
_STAGES = ((12, 24, 1), (24, 48, 2), (40, 80, 2), (48, 96, 3))
"""Width within a block, width between blocks, and blocks of layer1 to layer4."""
_PYRAMID = (8, 64, 64)
"""Widths at strides 8, 16 and 32. No face is as small as the anchors of the finest: it only has to say so."""
_HIDDEN = 4.6  # the logit of no face before anything is learned
_VARIANCES = (0.1, 0.2)
_OCTAVES = 0.62
_SIZES = {224: 16, 320: 8, 448: 4, 512: 4, 704: 2}
"""Edges of the pictures, and how many of each make a batch: about as many pixels each."""


def untrained() -> RetinaFace:
    """The network as the runtime builds it, ready to be trained."""
    names = Names()
    names.conv_norm("body.conv1", "body.bn1", 3, _STEM, 3)
    inputs = _STEM
    for stage, (within, between, blocks) in enumerate(_STAGES, 1):
        for block in range(blocks):
            at = f"body.layer{stage}.{block}"
            names.conv_norm(f"{at}.conv1", f"{at}.bn1", inputs, within)
            names.conv_norm(f"{at}.conv2", f"{at}.bn2", within, within, 3)
            names.conv_norm(f"{at}.conv3", f"{at}.bn3", within, between)
            if block == 0:
                names.conv_norm(f"{at}.downsample.0", f"{at}.downsample.1", inputs, between)
            inputs = between
    for level, width in enumerate(_PYRAMID, 1):
        # What coarser levels add has the coarsest's width; merging narrows it to the level's own.
        names.conv_norm(f"fpn.output{level}.0", f"fpn.output{level}.1", _STAGES[level][1], _PYRAMID[-1])
        if level < 3:
            names.conv_norm(f"fpn.merge{level}.0", f"fpn.merge{level}.1", _PYRAMID[-1], width, 3)
        _context(names, f"ssh{level}", width)
        for head, values in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
            names.conv(f"{head}.{level - 1}.conv1x1", width, 2 * values, bias=True)
    network = RetinaFace(names.tensors)
    for scores in network.ClassHead:
        bias = cast(Tensor, cast(nn.Conv2d, scores.conv1x1).bias)
        nn.init.zeros_(bias)
        nn.init.constant_(bias[0::2], _HIDDEN)
    return network


def train(folder: Path, steps: int) -> None:
    cv2.setNumThreads(1)
    network = untrained()
    stage = Stage(folder, network, steps=steps, rate=4e-3, small_rate=2e-3, seed=SEED, small=("Head",), average=0.99)
    for step in stage.loop():
        shots = _batch(stage.rng(step))
        anchors = anchors_of(*shots[0].pixels.shape[:2])
        with torch.autocast("cpu", torch.bfloat16):
            boxes, scores, landmarks = network(normalise(shots))
        corners = _corners(boxes.float())
        total, measured = loss(
            scores[..., 1].float(), corners, landmarks.float() * _VARIANCES[0], wanted(anchors, shots)
        )
        stage.update(total, **measured)
    rng = stage.rng(steps, stream=1)
    settle(stage, (normalise(_batch(rng)) for _ in range(24)))


def anchors_of(height: int, width: int) -> Anchors:
    """The runtime's anchors in pixels."""
    units = grid(height, width) * np.array((width, height, width, height), np.float32)
    return Anchors(units[:, :2], units[:, 2], _OCTAVES)


def normalise(shots: Sequence[Shot]) -> Tensor:
    """What the runtime gives the network: [N, 3, H, W], blue, green, red minus their means."""
    bgr = np.stack([shot.pixels[..., ::-1] for shot in shots]).astype(np.float32)
    return torch.from_numpy(bgr - np.array(ALIGNER_MEAN, np.float32)).permute(0, 3, 1, 2).contiguous()


def trained(folder: Path) -> RetinaFace:
    """As far as it has been trained in `folder`, evaluating."""
    return RetinaFace.from_tensors(weights(folder))


def write_aligner(folder: Path, path: Path) -> None:
    """Write what was trained in `folder` as facexlib names it, in float16."""
    save(weights(folder), path, prefix="module.")


def _batch(rng: np.random.Generator) -> list[Shot]:
    """Pictures of one size; faces mostly as large as in a portrait, some of them far smaller."""
    size = int(rng.choice(list(_SIZES)))
    height, width = (size, int(size * rng.choice((1, 1, 0.75)))) if rng.random() < 0.5 else (int(size * 0.75), size)
    shots = []
    for number in range(_SIZES[size]):
        low = 0.4 if rng.random() < 0.6 else max(0.12, 44 / size)
        empty = number % 8 == 7
        shot = nobody(rng, height, width) if empty else people(rng, height, width, low * size, 0.72 * size)
        shots.append(Shot(worn(shot.pixels, rng), shot.boxes, shot.keypoints))
    return shots


def _corners(boxes: Tensor) -> Tensor:
    """RetinaFace's boxes as left, top, right and bottom from the anchor's centre, in its edges."""
    centre, extent = boxes[..., :2] * _VARIANCES[0], (boxes[..., 2:] * _VARIANCES[1]).clamp(max=3.0).exp()
    return torch.cat((centre - extent / 2, centre + extent / 2), dim=-1)


def _context(names: Names, at: str, width: int) -> None:
    half, quarter = width // 2, width // 4
    names.conv_norm(f"{at}.conv3X3.0", f"{at}.conv3X3.1", width, half, 3)
    names.conv_norm(f"{at}.conv5X5_1.0", f"{at}.conv5X5_1.1", width, quarter, 3)
    for branch in ("conv5X5_2", "conv7X7_2", "conv7x7_3"):
        names.conv_norm(f"{at}.{branch}.0", f"{at}.{branch}.1", quarter, quarter, 3)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps)
