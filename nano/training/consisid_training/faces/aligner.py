"""Trains the aligner, RetinaFace under facexlib's names, to find five landmarks of faces in pictures of any size."""

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
from consisid_training.data.mosaics import CloseUps, mosaic
from consisid_training.data.pictures import FacePicture, degrade, draw_people, draw_without_faces
from consisid_training.faces.anchors import Anchors, anchor_targets, detection_loss
from consisid_training.faces.keypoint_maps import KeypointMaps, position_kernels
from consisid_training.faces.layer_shapes import LayerShapes, save_half
from consisid_training.loop.batch_norm import remeasure_statistics
from consisid_training.loop.device import autocast
from consisid_training.loop.resumable import TrainingRun, weights

SEED = 42
_STEM = 12
_LAYERS = ((12, 24, 1), (24, 48, 2), (40, 80, 2), (48, 96, 2))
"""Width within a block, width between blocks, and blocks of layer1 to layer4."""
_PYRAMID = (8, 32, 48)
"""Widths at strides 8, 16 and 32; no training face is as small as the anchors of stride 8, so that one is narrow."""
_REACH = 7
"""Size of the kernels that are 3×3 in RetinaFace: landmarks are up to six cells from the cell that finds the face."""
_HIDDEN = 4.6  # initial logit of "no face"
_VARIANCES = (0.1, 0.2)
_OCTAVES = 0.62
_EDGES = ((34.0, 242.0), (135.0, 968.0))
"""Least and greatest edge, in pixels, of the faces that strides 16 and 32 may find."""
_BATCHES = ((384, 1, 2, 5), (384, 1, 2, 5), (384, 1, 2, 5), (192, 3, 3, 4), (704, 1, 1, 3))
"""Edge, rows and columns of cells, and pictures of a batch; most faces are as large as in a portrait of 512 pixels."""


def initial_network() -> RetinaFace:
    """Return the network as the runtime builds it, initialised for training."""
    names = LayerShapes()
    names.conv_norm("body.conv1", "body.bn1", 3, _STEM, 3)
    inputs = _STEM
    for layer, (within, between, blocks) in enumerate(_LAYERS, 1):
        for block in range(blocks):
            at = f"body.layer{layer}.{block}"
            names.conv_norm(f"{at}.conv1", f"{at}.bn1", inputs, within)
            names.conv_norm(f"{at}.conv2", f"{at}.bn2", within, within, 3)
            names.conv_norm(f"{at}.conv3", f"{at}.bn3", within, between)
            if block == 0:
                names.conv_norm(f"{at}.downsample.0", f"{at}.downsample.1", inputs, between)
            inputs = between
    for level, width in enumerate(_PYRAMID, 1):
        # A level has the width of the coarser one, which is added to it; merging reduces it to its own width.
        coarser = _PYRAMID[min(level, 2)]
        names.conv_norm(f"fpn.output{level}.0", f"fpn.output{level}.1", _LAYERS[level][1], coarser)
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


class AlignerInTraining(nn.Module):
    """The network with `KeypointMaps` as an auxiliary loss on its features."""

    def __init__(self) -> None:
        super().__init__()
        self.network = initial_network()
        self.keypoint_maps = KeypointMaps(_PYRAMID[1:], (16, 32), _EDGES)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        heads: tuple[Tensor, Tensor, Tensor] = self.network(images)
        return heads

    def heads_and_features(self, images: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        """Return the outputs for [N, 3, H, W], and the pyramid's features at strides 16 and 32."""
        kept: list[Tensor] = []
        hook = self.network.fpn.register_forward_hook(lambda module, inputs, levels: kept.extend(levels[1:]))
        heads = self(images)
        hook.remove()
        return heads, kept


def train(folder: Path, steps: int) -> None:
    cv2.setNumThreads(1)
    torch.manual_seed(SEED)
    network = AlignerInTraining()
    run = TrainingRun(
        folder, network, steps=steps, rate=8e-3, adamw_rate=4e-3, seed=SEED, adamw=("Head",), average=0.99
    )
    close_ups = CloseUps(SEED, 448, 1000, 4)
    for step in run.loop():
        pictures = _batch(run.rng(step), close_ups.at(step))
        anchors = anchors_of(*pictures[0].pixels.shape[:2])
        with autocast("cpu"):
            (boxes, scores, landmarks), features = network.heads_and_features(normalise(pictures))
            parts = network.keypoint_maps.loss(features, pictures)
        corners = _corners(boxes.float())
        total, measured = detection_loss(
            scores[..., 1].float(), corners, landmarks.float() * _VARIANCES[0], anchor_targets(anchors, pictures)
        )
        run.update(total + parts, **measured, parts=parts.item())
    rng = run.rng(steps, stream=1)
    remeasure_statistics(run, (normalise(_batch(rng, close_ups.at(steps))) for _ in range(30)))


def anchors_of(height: int, width: int) -> Anchors:
    """Return the runtime's anchors in pixels."""
    units = grid(height, width) * np.array((width, height, width, height), np.float32)
    return Anchors(units[:, :2], units[:, 2], _OCTAVES)


def normalise(pictures: Sequence[FacePicture]) -> Tensor:
    """Return the network's input as in the runtime: [N, 3, H, W], blue, green, red minus their means."""
    bgr = np.stack([picture.pixels[..., ::-1] for picture in pictures]).astype(np.float32)
    return torch.from_numpy(bgr - np.array(ALIGNER_MEAN, np.float32)).permute(0, 3, 1, 2).contiguous()


def trained(folder: Path) -> RetinaFace:
    """Return the network trained in `folder`, in evaluation mode."""
    return RetinaFace.from_tensors(_own(folder))


def write_aligner(folder: Path, path: Path) -> None:
    """Write the network trained in `folder` under facexlib's names, in float16."""
    save_half(_own(folder), path, prefix="module.")


def _own(folder: Path) -> dict[str, Tensor]:
    found = weights(folder)
    return {name.removeprefix("network."): t for name, t in found.items() if name.startswith("network.")}


def _batch(rng: np.random.Generator, close_ups: Sequence[FacePicture]) -> list[FacePicture]:
    """Draw pictures of one size: mosaics, and one with people in any position or without faces."""
    edge, rows, columns, count = _BATCHES[int(rng.integers(len(_BATCHES)))]
    pictures = [mosaic(rng, close_ups, (edge, edge), rows, columns) for _ in range(count - 1)]
    height, width = rows * edge, columns * edge
    if rng.random() < 0.5:
        pictures.append(draw_people(rng, height, width, 0.45 * edge, 0.8 * edge))
    else:
        pictures.append(draw_without_faces(rng, height, width))
    # The aligner processes portraits only, which are less degraded than frames of a video.
    return [
        FacePicture(degrade(s.pixels, rng) if rng.random() < 0.4 else s.pixels, s.boxes, s.keypoints) for s in pictures
    ]


def _corners(boxes: Tensor) -> Tensor:
    """Convert RetinaFace's boxes to left, top, right and bottom relative to the anchor's centre, in its edges."""
    centre, extent = boxes[..., :2] * _VARIANCES[0], (boxes[..., 2:] * _VARIANCES[1]).clamp(max=3.0).exp()
    return torch.cat((centre - extent / 2, centre + extent / 2), dim=-1)


def _context(names: LayerShapes, at: str, width: int) -> int:
    """Declare the three branches of a level; returns their total number of channels."""
    near, far = width // 2, width * 5 // 12
    names.conv_norm(f"{at}.conv3X3.0", f"{at}.conv3X3.1", width, near, 3)
    names.conv_norm(f"{at}.conv5X5_1.0", f"{at}.conv5X5_1.1", width, far, 3)
    for branch in ("conv5X5_2", "conv7X7_2", "conv7x7_3"):
        names.conv_norm(f"{at}.{branch}.0", f"{at}.{branch}.1", far, far, _REACH)
    return near + 2 * far


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the training run")
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps)
