"""Trains the detector, with SCRFD's inputs and outputs, to find faces of the world and their five keypoints."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import cast

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_weights

from consisid_nano.untrained.graph import Graph
from consisid_training.data.mosaics import CloseUps, mosaic
from consisid_training.data.pictures import FacePicture, degrade, draw_people, draw_without_faces
from consisid_training.faces.anchors import UNDECIDED, Anchors, anchor_targets, detection_loss
from consisid_training.faces.keypoint_maps import KeypointMaps, position_kernels
from consisid_training.loop.batch_norm import remeasure_statistics
from consisid_training.loop.device import autocast
from consisid_training.loop.resumable import TrainingRun, weights
from consisid_training.onnx_files import halve

SEED = 41
STRIDES = (8, 16, 32)
EDGES = ((52.0, 78.0), (117.0, 176.0), (264.0, 396.0))
"""Edges of each stride's two anchors, in pixels of the input."""
OCTAVES = 0.38

_KINDS = {"mosaics": 9, "people": 3, "nobody": 4}
_GRIDS = ((1, 1), (1, 1), (1, 2), (1, 2), (2, 2), (2, 2), (2, 3))
_POOL = 4  # pixels of the input averaged before the first layer
_SIZE = 640  # insightface's input
_WIDTHS = (16, 32, 56, 56)  # at strides 8, 16, 32 and 64
_RESIDUAL = (1, 2, 2, 0)  # convolutions after each halving
_PYRAMID = 40
_REACH = 9
_HIDDEN = -4.6  # initial logit of a face


class Detector(nn.Module):
    """[N, 3, H, W] RGB as (level − 127.5) / 128, a quarter of the input's size → score, corners, points.

    Score [N, A, 1] in 0…1, corners [N, A, 4] (left, top, right, bottom) and points [N, A, 10] relative to the anchor's
    centre, in its edges. Anchors are ordered by stride, row, column and the two of a cell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.halvings = nn.ModuleList(_conv(a, b, 3, 2) for a, b in pairwise((3, *_WIDTHS)))
        self.extra = nn.ModuleList(
            nn.ModuleList(_conv(width, width, 3) for _ in range(count))
            for width, count in zip(_WIDTHS, _RESIDUAL, strict=True)
        )
        self.across = nn.ModuleList(_conv(width, _PYRAMID, 1) for width in _WIDTHS)
        self.smooth = nn.ModuleList(_conv(_PYRAMID, _PYRAMID, 3) for _ in STRIDES[1:])  # too slow for the finest
        # Landmarks are up to five cells from the cell that finds the face.
        self.wide = nn.ModuleList(_conv(_PYRAMID, 2 * _PYRAMID, _REACH, groups=_PYRAMID) for _ in STRIDES[1:])
        self.heads = nn.ModuleList(nn.Conv2d((3 if level else 1) * _PYRAMID, 2 * 15, 1) for level in range(3))
        for head in self.heads:
            nn.init.constant_(cast(Tensor, head.bias)[:2], _HIDDEN)
        for wide in self.wide:
            assert isinstance(wide, nn.Sequential)
            position_kernels(cast(nn.Conv2d, wide[0]).weight)
        reach = 2 ** (OCTAVES + UNDECIDED)
        self.keypoint_maps = KeypointMaps(
            [_PYRAMID] * 2, STRIDES[1:], [(low / reach, high * reach) for low, high in EDGES[1:]]
        )

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return self.heads_and_features(pictures)[0]

    def heads_and_features(self, pictures: Tensor) -> tuple[tuple[Tensor, Tensor, Tensor], list[Tensor]]:
        """Return `forward`'s result, and the features at strides 16 and 32 from which landmarks are computed."""
        levels, x = [], pictures
        for level, halving in enumerate(self.halvings):
            x = F.relu(halving(x))
            for again in cast(nn.ModuleList, self.extra[level]):
                x = F.relu(x + again(x))
            levels.append(x)
        coarser = F.relu(self.across[3](levels[3]))
        found, features = [], []
        for level in (2, 1, 0):
            x = levels[level]
            enlarged = F.interpolate(coarser, size=x.shape[-2:], mode="nearest")
            coarser = F.relu(self.across[level](x) + enlarged)
            seen = coarser
            if level:
                coarser = F.relu(self.smooth[level - 1](coarser))
                features.append(coarser)
                seen = torch.cat((coarser, F.relu(self.wide[level - 1](coarser))), dim=1)
            found.append(self.heads[level](seen))
        parts = zip(*(_split(heads.float()) for heads in reversed(found)), strict=True)
        score, corners, points = (torch.cat(levels, dim=1) for levels in parts)
        return (score.sigmoid(), corners, points), features[::-1]


def train(folder: Path, steps: int) -> None:
    cv2.setNumThreads(1)
    torch.manual_seed(SEED)
    network = Detector()
    run = TrainingRun(
        folder, network, steps=steps, rate=8e-3, adamw_rate=4e-3, seed=SEED, adamw=("heads", "wide"), average=0.99
    )
    grid, close_ups = anchors(_SIZE), CloseUps(SEED, _SIZE // _POOL, 1500, 4)
    for step in run.loop():
        pictures = _batch(run.rng(step), close_ups.at(step))
        with autocast("cpu"):
            (score, corners, points), features = network.heads_and_features(_tensor(pictures))
            parts = network.keypoint_maps.loss(features, pictures)
        total, measured = detection_loss(score[..., 0], corners, points, anchor_targets(grid, pictures))
        run.update(total + parts, **measured, parts=parts.item())
    rng = run.rng(steps, stream=1)
    remeasure_statistics(run, (_tensor(_batch(rng, close_ups.at(steps))) for _ in range(24)))


def _batch(rng: np.random.Generator, close_ups: Sequence[FacePicture]) -> list[FacePicture]:
    """Draw pictures [160, 160, 3] in the top left corner, as in insightface's input reduced by `_POOL`.

    Boxes and keypoints are in pixels of the input.
    """
    edge, pictures = _SIZE // _POOL, []
    for number in range(sum(_KINDS.values())):
        aspect = float(rng.choice((2 / 3, 3 / 4, 1, 1, 1, 4 / 3, 3 / 2, 3 / 2, 16 / 9)))
        height, width = (edge, round(edge * aspect)) if aspect <= 1 else (round(edge / aspect), edge)
        if number < _KINDS["mosaics"]:
            rows, columns = _GRIDS[int(rng.integers(len(_GRIDS)))]
            height, width = height if rows > 1 else max(height, edge // 2), width // columns * columns
            picture = mosaic(rng, close_ups, (height // rows, width // columns), rows, columns)
            height = picture.pixels.shape[0]
        elif number < _KINDS["mosaics"] + _KINDS["people"]:
            picture = draw_people(rng, height, width, 72 / _POOL, 540 / _POOL)
        else:
            picture = draw_without_faces(rng, height, width)
        filled = np.zeros((edge, edge, 3), np.uint8)
        filled[:height, :width] = degrade(picture.pixels, rng)
        # Coordinates count from the edges of pixels, as in the world.
        pictures.append(FacePicture(filled, picture.boxes * _POOL, picture.keypoints * _POOL))
    return pictures


def anchors(size: int) -> Anchors:
    """Return the anchors of an input [size, size]; insightface places the centre of a cell at its corner."""
    centres, edges = [], []
    for stride, pair in zip(STRIDES, EDGES, strict=True):
        y, x, edge = np.meshgrid(*[np.arange(0, size, stride)] * 2, np.array(pair), indexing="ij")
        centres.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        edges.append(edge.reshape(-1))
    return Anchors(np.concatenate(centres).astype(np.float32), np.concatenate(edges).astype(np.float32), OCTAVES)


def trained(folder: Path) -> Detector:
    """Return the network trained in `folder`, in evaluation mode."""
    network = Detector()
    network.load_state_dict(weights(folder))
    return network.eval().requires_grad_(False)


def write_detector(folder: Path, path: Path) -> None:
    """Write the network trained in `folder` as ONNX, input [1, 3, H, W], H and W multiples of 32."""
    network, graph = trained(folder), Graph()

    def conv(block: nn.Module, x: str, stride: int = 1) -> str:
        plain, norm = cast(nn.Conv2d, block[0]), cast(nn.BatchNorm2d, block[1])  # type: ignore[index]
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        weight, bias = fuse_conv_bn_weights(plain.weight, None, mean, variance, norm.eps, norm.weight, norm.bias)
        tensors = graph.constant(weight.numpy(force=True)), graph.constant(bias.numpy(force=True))
        return graph.add(
            "Conv", x, *tensors, pads=[weight.shape[-1] // 2] * 4, strides=[stride] * 2, group=plain.groups
        )

    def relu(*terms: str) -> str:
        return graph.add("Relu", graph.add("Add", *terms) if len(terms) == 2 else terms[0])

    levels, x = [], graph.add("AveragePool", "input.1", kernel_shape=[_POOL] * 2, strides=[_POOL] * 2)
    for level, halving in enumerate(network.halvings):
        x = relu(conv(halving, x, 2))
        for again in cast(nn.ModuleList, network.extra[level]):
            x = relu(x, conv(again, x))
        levels.append(x)
    coarser = relu(conv(network.across[3], levels[3]))
    outputs: dict[str, str] = {}
    for level in (2, 1, 0):
        x = conv(network.across[level], levels[level])
        coarser = relu(x, _enlarged(graph, coarser, x))
        seen = coarser
        if level:
            coarser = relu(conv(network.smooth[level - 1], coarser))
            seen = graph.add("Concat", coarser, relu(conv(network.wide[level - 1], coarser)), axis=1)
        outputs |= _heads(graph, seen, cast(nn.Conv2d, network.heads[level]), level)
    ordered = {f"{name}_{stride}": width for name, width in _OUTPUTS.items() for stride in STRIDES}
    assert outputs.keys() == ordered.keys()
    graph.save(
        path,
        {"input.1": [1, 3, "height", "width"]},
        {name: [f"anchors_{name.rsplit('_', 1)[1]}", width] for name, width in ordered.items()},
    )
    halve(path)


_OUTPUTS = {"score": 1, "bbox": 4, "kps": 10}


def _heads(graph: Graph, x: str, head: nn.Conv2d, level: int) -> dict[str, str]:
    """Add insightface's outputs of one stride: scores, distances to box edges and offsets of keypoints, in strides."""
    weight, bias = head.weight.numpy(force=True)[:, :, 0, 0], cast(Tensor, head.bias).numpy(force=True)
    stride, edges = STRIDES[level], np.array(EDGES[level])
    signs = {"score": np.ones(1), "bbox": np.array((-1, -1, 1, 1)), "kps": np.ones(10)}
    starts = np.cumsum((0, *(2 * width for width in _OUTPUTS.values())))
    found = {}
    for (name, width), start in zip(_OUTPUTS.items(), starts, strict=False):
        rows = slice(int(start), int(start) + 2 * width)
        scale = np.ones(2) if name == "score" else edges / stride
        factors = np.outer(scale, signs[name]).reshape(-1)
        raw = graph.conv(x, weight[rows] * factors[:, None], bias[rows] * factors)
        raw = graph.add("Sigmoid", raw) if name == "score" else raw
        last = graph.add("Transpose", raw, perm=[0, 2, 3, 1])
        output = f"{name}_{stride}"
        found[output] = graph.add("Reshape", last, graph.integers(-1, width), output=output)
    return found


def _enlarged(graph: Graph, x: str, like: str) -> str:
    """Resize `x` to height and width of `like` by nearest neighbour."""
    sizes = [graph.add("Shape", x, start=0, end=2), graph.add("Shape", like, start=2, end=4)]
    both = graph.add("Concat", *sizes, axis=0)
    return graph.add(
        "Resize", x, "", "", both, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


def _split(heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Split channels, ordered as both anchors' scores, corners and points, into three tensors."""
    rows = heads.permute(0, 2, 3, 1)
    parts = torch.split(rows, [2 * width for width in _OUTPUTS.values()], dim=-1)
    score, corners, points = (
        part.reshape(len(heads), -1, width) for part, width in zip(parts, _OUTPUTS.values(), strict=True)
    )
    return score, corners, points


def _tensor(pictures: Sequence[FacePicture]) -> Tensor:
    pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures])).permute(0, 3, 1, 2)
    return (pixels.float() - 127.5) / 128


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path, help="of the training run")
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps)
