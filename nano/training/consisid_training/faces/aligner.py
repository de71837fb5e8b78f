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

from consisid_runtime.models.retinaface import RetinaFace
from consisid_runtime.stages.face.geometry import ALIGNER_MEAN
from consisid_runtime.stages.face.geometry import anchors as grid
from consisid_training.data.mosaics import Tiles, mosaic
from consisid_training.data.pictures import Shot, nobody, people, worn
from consisid_training.faces.anchors import Anchors, loss, wanted
from consisid_training.faces.official import Names, save
from consisid_training.faces.parts import Parts, position_kernels
from consisid_training.loop.device import half
from consisid_training.loop.norms import settle
from consisid_training.loop.resumable import Stage, weights

SEED = 42
_STEM = 12
_STAGES = ((12, 24, 1), (24, 48, 2), (40, 80, 2), (48, 96, 2))
"""Width within a block, width between blocks, and blocks of layer1 to layer4."""
_PYRAMID = (8, 32, 48)
"""Widths at strides 8, 16 and 32. No face is as small as the anchors of the finest: it only has to say so."""
_REACH = 7
"""Kernel of what in RetinaFace is 3×3 behind 3×3: landmarks lie up to six cells from the cell that finds the face."""
_HIDDEN = 4.6  # the logit of no face before anything is learned
_VARIANCES = (0.1, 0.2)
_OCTAVES = 0.62
_EDGES = ((34.0, 242.0), (135.0, 968.0))
"""Of the faces that strides 16 and 32 may find."""
_BATCHES = ((384, 1, 2, 5), (384, 1, 2, 5), (384, 1, 2, 5), (192, 3, 3, 4), (704, 1, 1, 3))
"""Edges of a cell, rows and columns of cells, and pictures in a batch: most as large as in a portrait of 512 pixels."""


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
        # What a coarser level adds has that level's width; merging narrows it to the level's own.
        coarser = _PYRAMID[min(level, 2)]
        names.conv_norm(f"fpn.output{level}.0", f"fpn.output{level}.1", _STAGES[level][1], coarser)
        if level < 3:
            names.conv_norm(f"fpn.merge{level}.0", f"fpn.merge{level}.1", coarser, width, 3)
        seen = _context(names, f"ssh{level}", width)
        for head, values in (("ClassHead", 2), ("BboxHead", 4), ("LandmarkHead", 10)):
            names.conv(f"{head}.{level - 1}.conv1x1", seen, 2 * values, bias=True)
    network = RetinaFace(names.tensors)
    for scores in network.ClassHead:
        bias = cast(Tensor, cast(nn.Conv2d, scores.conv1x1).bias)
        nn.init.zeros_(bias)
        nn.init.constant_(bias[0::2], _HIDDEN)
    for context in (network.ssh2, network.ssh3):
        for branch in (context.conv5X5_2, context.conv7X7_2):
            position_kernels(cast(nn.Conv2d, branch[0]).weight)
    return network


class Taught(nn.Module):
    """The network, and what teaches its features where the parts of a face are."""

    def __init__(self) -> None:
        super().__init__()
        self.network = untrained()
        self.parts = Parts(_PYRAMID[1:], (16, 32), _EDGES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads: tuple[Tensor, Tensor, Tensor] = self.network(images)
        return heads

    def heads_and_features(self, images: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        """What the network says of [N, 3, H, W], and the features of its pyramid at strides 16 and 32."""
        kept: list[Tensor] = []
        hook = self.network.fpn.register_forward_hook(lambda module, inputs, levels: kept.extend(levels[1:]))
        heads = self(images)
        hook.remove()
        return heads, kept


def train(folder: Path, steps: int) -> None:
    cv2.setNumThreads(1)
    torch.manual_seed(SEED)
    network = Taught()
    stage = Stage(folder, network, steps=steps, rate=8e-3, small_rate=4e-3, seed=SEED, small=("Head",), average=0.99)
    tiles = Tiles(SEED, 448, 1000, 4)
    for step in stage.loop():
        shots = _batch(stage.rng(step), tiles.at(step))
        anchors = anchors_of(*shots[0].pixels.shape[:2])
        with half("cpu"):
            (boxes, scores, landmarks), features = network.heads_and_features(normalise(shots))
            parts = network.parts.loss(features, shots)
        corners = _corners(boxes.float())
        total, measured = loss(
            scores[..., 1].float(), corners, landmarks.float() * _VARIANCES[0], wanted(anchors, shots)
        )
        stage.update(total + parts, **measured, parts=parts.item())
    rng = stage.rng(steps, stream=1)
    settle(stage, (normalise(_batch(rng, tiles.at(steps))) for _ in range(30)))


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
    return RetinaFace.from_tensors(_own(folder))


def write_aligner(folder: Path, path: Path) -> None:
    """Write what was trained in `folder` as facexlib names it, in float16."""
    save(_own(folder), path, prefix="module.")


def _own(folder: Path) -> dict[str, Tensor]:
    found = weights(folder)
    return {name.removeprefix("network."): t for name, t in found.items() if name.startswith("network.")}


def _batch(rng: np.random.Generator, tiles: Sequence[Shot]) -> list[Shot]:
    """Pictures of one size: mosaics, and one with people anywhere or nobody."""
    edge, rows, columns, count = _BATCHES[int(rng.integers(len(_BATCHES)))]
    shots = [mosaic(rng, tiles, (edge, edge), rows, columns) for _ in range(count - 1)]
    height, width = rows * edge, columns * edge
    if rng.random() < 0.5:
        shots.append(people(rng, height, width, 0.45 * edge, 0.8 * edge))
    else:
        shots.append(nobody(rng, height, width))
    # It only ever sees portraits; few of those are as worn as frames of a video.
    return [Shot(worn(s.pixels, rng) if rng.random() < 0.4 else s.pixels, s.boxes, s.keypoints) for s in shots]


def _corners(boxes: Tensor) -> Tensor:
    """RetinaFace's boxes as left, top, right and bottom from the anchor's centre, in its edges."""
    centre, extent = boxes[..., :2] * _VARIANCES[0], (boxes[..., 2:] * _VARIANCES[1]).clamp(max=3.0).exp()
    return torch.cat((centre - extent / 2, centre + extent / 2), dim=-1)


def _context(names: Names, at: str, width: int) -> int:
    """One level's three branches; returns how many channels they have together."""
    near, far = width // 2, width * 5 // 12
    names.conv_norm(f"{at}.conv3X3.0", f"{at}.conv3X3.1", width, near, 3)
    names.conv_norm(f"{at}.conv5X5_1.0", f"{at}.conv5X5_1.1", width, far, 3)
    for branch in ("conv5X5_2", "conv7X7_2", "conv7x7_3"):
        names.conv_norm(f"{at}.{branch}.0", f"{at}.{branch}.1", far, far, _REACH)
    return near + 2 * far


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps)
