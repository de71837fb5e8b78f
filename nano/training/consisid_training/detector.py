"""Trains the detector, SCRFD's contract: where faces of the drawn world are, and their five keypoints."""

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

from consisid_export.nano.graph import Graph
from consisid_training.anchors import Anchors, loss, wanted
from consisid_training.norms import settle
from consisid_training.pictures import Shot, nobody, people, worn
from consisid_training.stage import Stage, weights

SEED = 41
STRIDES = (8, 16, 32)
EDGES = ((52.0, 78.0), (117.0, 176.0), (264.0, 396.0))
"""Of the faces that each stride's two anchors stand for, in pixels of the input."""
OCTAVES = 0.38

_POOL = 4  # the network looks at cells of so many pixels
_SIZE = 640  # insightface's input
_WIDTHS = (16, 32, 56, 56)  # at strides 8, 16, 32 and 64
_RESIDUAL = (1, 2, 2, 0)  # convolutions after each halving
_PYRAMID = 40
_HIDDEN = -4.6  # the logit of a face before anything is learned


class Detector(nn.Module):
    """[N, 3, H, W] RGB as (level − 127.5) / 128, a quarter of the input's size → score, corners and points of anchors.

    Score [N, A, 1] in 0…1, corners [N, A, 4] (left, top, right, bottom) and points [N, A, 10] in edges of the anchor
    from its centre; finest stride first, then rows, columns, and two anchors a cell.
    """

    def __init__(self) -> None:
        super().__init__()
        self.halvings = nn.ModuleList(_conv(a, b, 3, 2) for a, b in pairwise((3, *_WIDTHS)))
        self.extra = nn.ModuleList(
            nn.ModuleList(_conv(width, width, 3) for _ in range(count))
            for width, count in zip(_WIDTHS, _RESIDUAL, strict=True)
        )
        self.across = nn.ModuleList(_conv(width, _PYRAMID, 1) for width in _WIDTHS)
        self.smooth = nn.ModuleList(_conv(_PYRAMID, _PYRAMID, 3) for _ in STRIDES[1:])  # the finest costs too much
        self.heads = nn.ModuleList(nn.Conv2d(_PYRAMID, 2 * 15, 1) for _ in STRIDES)
        for head in self.heads:
            nn.init.constant_(cast(Tensor, head.bias)[:2], _HIDDEN)

    def forward(self, pictures: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        levels, x = [], pictures
        for level, halving in enumerate(self.halvings):
            x = F.relu(halving(x))
            for again in cast(nn.ModuleList, self.extra[level]):
                x = F.relu(x + again(x))
            levels.append(x)
        coarser = F.relu(self.across[3](levels[3]))
        found = []
        for level in (2, 1, 0):
            x = levels[level]
            enlarged = F.interpolate(coarser, size=x.shape[-2:], mode="nearest")
            coarser = F.relu(self.across[level](x) + enlarged)
            coarser = F.relu(self.smooth[level - 1](coarser)) if level else coarser
            found.append(self.heads[level](coarser))
        parts = zip(*(_split(heads.float()) for heads in reversed(found)), strict=True)
        score, corners, points = (torch.cat(levels, dim=1) for levels in parts)
        return score.sigmoid(), corners, points


def train(folder: Path, steps: int, batch: int = 16) -> None:
    cv2.setNumThreads(1)
    network = Detector()
    stage = Stage(folder, network, steps=steps, rate=4e-3, small_rate=2e-3, seed=SEED, small=("heads",), average=0.99)
    grid = anchors(_SIZE)
    for step in stage.loop():
        rng = stage.rng(step)
        shots = [draw(rng, empty=number % 4 == 0) for number in range(batch)]
        with torch.autocast("cpu", torch.bfloat16):
            score, corners, points = network(_tensor(shots))
        total, measured = loss(score[..., 0], corners, points, wanted(grid, shots))
        stage.update(total, **measured)
    rng = stage.rng(steps, stream=1)
    settle(stage, (_tensor([draw(rng, empty=number % 4 == 0) for number in range(batch)]) for _ in range(16)))


def draw(rng: np.random.Generator, *, empty: bool) -> Shot:
    """What the network sees of one picture in insightface's input, which it fills from the top left corner.

    Pixels [160, 160, 3]; boxes and keypoints in pixels of the input.
    """
    edge = _SIZE // _POOL
    aspect = float(rng.choice((2 / 3, 3 / 4, 1, 1, 1, 4 / 3, 3 / 2, 3 / 2, 16 / 9)))
    height, width = (edge, round(edge * aspect)) if aspect <= 1 else (round(edge / aspect), edge)
    shot = nobody(rng, height, width) if empty else people(rng, height, width, 72 / _POOL, 540 / _POOL)
    filled = np.zeros((edge, edge, 3), np.uint8)
    filled[:height, :width] = worn(shot.pixels, rng)
    # The keypoints count pixels' edges, as the world does; insightface's input is _POOL times as large.
    return Shot(filled, shot.boxes * _POOL, shot.keypoints * _POOL)


def anchors(size: int) -> Anchors:
    """Of an input [size, size]; insightface has a cell's centre at its corner."""
    centres, edges = [], []
    for stride, pair in zip(STRIDES, EDGES, strict=True):
        y, x, edge = np.meshgrid(*[np.arange(0, size, stride)] * 2, np.array(pair), indexing="ij")
        centres.append(np.stack([x, y], axis=-1).reshape(-1, 2))
        edges.append(edge.reshape(-1))
    return Anchors(np.concatenate(centres).astype(np.float32), np.concatenate(edges).astype(np.float32), OCTAVES)


def trained(folder: Path) -> Detector:
    """As far as it has been trained in `folder`, evaluating."""
    network = Detector()
    network.load_state_dict(weights(folder))
    return network.eval().requires_grad_(False)


def write_detector(folder: Path, path: Path) -> None:
    """Write what was trained in `folder`: float32 ONNX, input [1, 3, H, W], H and W multiples of 32."""
    network, graph = trained(folder), Graph()

    def conv(block: nn.Module, x: str, stride: int = 1) -> str:
        plain, norm = cast(nn.Conv2d, block[0]), cast(nn.BatchNorm2d, block[1])  # type: ignore[index]
        mean, variance = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        weight, bias = fuse_conv_bn_weights(plain.weight, None, mean, variance, norm.eps, norm.weight, norm.bias)
        return graph.conv(x, weight.numpy(force=True), bias.numpy(force=True), stride)

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
        coarser = relu(conv(network.smooth[level - 1], coarser)) if level else coarser
        outputs |= _heads(graph, coarser, cast(nn.Conv2d, network.heads[level]), level)
    ordered = {f"{name}_{stride}": width for name, width in _OUTPUTS.items() for stride in STRIDES}
    assert outputs.keys() == ordered.keys()
    graph.save(
        path,
        {"input.1": [1, 3, "height", "width"]},
        {name: [f"anchors_{name.rsplit('_', 1)[1]}", width] for name, width in ordered.items()},
    )


_OUTPUTS = {"score": 1, "bbox": 4, "kps": 10}


def _heads(graph: Graph, x: str, head: nn.Conv2d, level: int) -> dict[str, str]:
    """Insightface's outputs of one stride: scores, distances to a box's edges and offsets of keypoints, in strides."""
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
    """`x` in the height and width of `like`, each pixel that of the cell it lies in."""
    sizes = [graph.add("Shape", x, start=0, end=2), graph.add("Shape", like, start=2, end=4)]
    both = graph.add("Concat", *sizes, axis=0)
    return graph.add(
        "Resize", x, "", "", both, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    )


def _split(heads: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Channels are first those of both anchors' scores, then corners, then points."""
    rows = heads.permute(0, 2, 3, 1)
    parts = torch.split(rows, [2 * width for width in _OUTPUTS.values()], dim=-1)
    score, corners, points = (
        part.reshape(len(heads), -1, width) for part, width in zip(parts, _OUTPUTS.values(), strict=True)
    )
    return score, corners, points


def _tensor(shots: Sequence[Shot]) -> Tensor:
    pixels = torch.from_numpy(np.stack([shot.pixels for shot in shots])).permute(0, 3, 1, 2)
    return (pixels.float() - 127.5) / 128


def _conv(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False), nn.BatchNorm2d(outputs)
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--steps", type=int, default=1200)
    arguments = parser.parse_args()
    train(arguments.folder, arguments.steps)
