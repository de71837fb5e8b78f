"""Builds an ONNX face detector with SCRFD's inputs and outputs by hand, from a fixed prior.

At every place and size it tests `constraints`: smooth skin on cheeks, nose and chin; two equally dark eyes, darker than
what is between and below them; a dark mouth; and surroundings that differ from the face. Each violated constraint adds
to the cost, and the score decreases with the cost.

It finds upright, evenly lit, unoccluded, frontal faces from about 1/8 of the frame to all of it whose skin is inside
the colour bounds of `prior`. Anything else that meets the constraints is a false positive. It serves to try the
software out, not to find people.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from consisid_nano.untrained import prior
from consisid_nano.untrained.constraints import (
    AROUND,
    TOLERATED,
    Constraint,
    Place,
    contrast_constraints,
    face_constraints,
)
from consisid_nano.untrained.graph import Graph

STRIDES = (8, 16, 32)
# Eye distances tested, in cells of half a stride: four an octave, one octave a stride.
_SIZES = tuple(8.0 * 2 ** (step / 4) for step in range(4))
_ANCHORS = 2
_MARGIN = 21  # cells from the middle of the eye line to the farthest place, plus one
_STEEPNESS = 10.0
_TRUE_SIZE = 1.08  # of the face with the least cost, relative to the tested size
_SHARPNESS = 12.0  # of the softmax over neighbouring candidates


def write_detector(path: Path) -> None:
    """Write the network to `path`: input [1, 3, H, W] RGB as (level − 127.5) / 128, H and W multiples of 32."""
    graph = Graph()
    maps = _maps(graph, "input.1")
    heads: dict[str, list[str]] = {"score": [], "bbox": [], "kps": []}
    for stride in STRIDES:
        cells = graph.add("AveragePool", maps, kernel_shape=[stride // 2] * 2, strides=[stride // 2] * 2)
        costs = [_cost(graph, cells, size) for size in _SIZES]
        candidates = graph.add("SpaceToDepth", graph.add("Concat", *costs, axis=1), blocksize=2)
        for name, output in zip(heads, _heads(graph, candidates, stride), strict=True):
            heads[name].append(output)
    outputs: dict[str, Sequence[int | str]] = {
        name: [f"anchors_{stride}", width]
        for (head, names), width in zip(heads.items(), (1, 4, 10), strict=True)
        for name, stride in zip(names, STRIDES, strict=True)
    }
    graph.save(path, {"input.1": [1, 3, "height", "width"]}, outputs)


def _maps(graph: Graph, image: str) -> str:
    """Add nodes for the maps darkness and skin [1, 2, H, W]."""
    bounds = np.array(prior.SKIN_BOUNDS)
    outside = graph.add("Relu", graph.conv(image, bounds[:, :3] * 128, bounds[:, 3] + 127.5 * bounds[:, :3].sum(1)))
    skin = graph.add("Relu", graph.conv(outside, np.full((1, len(bounds)), -1 / prior.SKIN_SOFTNESS), [1.0]))
    weights = np.array([prior.LUMINANCE]) * 128
    brightness = graph.add("Log", graph.conv(image, weights / 16, [127.5 / 16 + 1]))
    both = graph.add("Concat", brightness, skin, axis=1)
    darkness = [-1 / np.log(2), -prior.SKIN_IN_DARKNESS]
    return graph.conv(both, [darkness, [0, 1]], [prior.DARKEST, 0])


def _cost(graph: Graph, cells: str, size: float) -> str:
    """Add nodes for the cost [1, 1, h, w] of a face in each cell, with the eyes `size` cells apart."""
    darkness, skin = (
        graph.add("Slice", cells, graph.integers(i), graph.integers(i + 1), graph.integers(1)) for i in (0, 1)
    )

    def blur(x: str, radius: float) -> str:
        return graph.conv(x, _gaussian(radius * size)[None, None])

    fine = blur(darkness, 0.08)
    coarse = blur(darkness, 0.15)
    rough = graph.add("Abs", graph.add("Sub", darkness, blur(darkness, 0.12)))
    kinds = {
        "skin": blur(skin, 0.15),
        "around": blur(skin, 0.22),
        "darkness": coarse,
        "eye": graph.add("MaxPool", fine, kernel_shape=[3, 3], pads=[1] * 4),
        "mouth": graph.add("MaxPool", fine, kernel_shape=[3, 7], pads=[1, 3, 1, 3]),
        "roughness": blur(rough, 0.2),
    }
    # Outside the frame all maps are 0: neither skin nor dark.
    margins = graph.integers(0, 0, _MARGIN, _MARGIN, 0, 0, _MARGIN, _MARGIN)
    padded = {kind: graph.add("Pad", x, margins) for kind, x in kinds.items()}
    constraints = (*face_constraints(), *contrast_constraints())
    places: list[Place] = sorted({place for constraint in constraints for place in constraint.weights})
    samples = graph.add("Concat", *(_shifted(graph, padded[kind], x * size, y * size) for kind, x, y in places), axis=1)

    def hinges(rows: Sequence[Constraint]) -> str:
        weight = [[row.weights.get(place, 0.0) for place in places] for row in rows]
        return graph.add("Relu", graph.conv(samples, weight, [row.bias for row in rows]))

    violated = graph.conv(hinges(face_constraints()), [[constraint.cost for constraint in face_constraints()]])
    return graph.add("Add", violated, _contrast_cost(graph, hinges(contrast_constraints())))


def _contrast_cost(graph: Graph, differences: str) -> str:
    """Add nodes for the cost of a face that resembles its surroundings; each spot counts at most 1."""
    rows = contrast_constraints()
    weight = [[-row.cost if row.group == spot else 0.0 for row in rows] for spot in range(len(AROUND))]
    alike = graph.add("Relu", graph.conv(differences, weight, [1.0] * len(AROUND)))
    share = graph.conv(alike, np.full((1, len(AROUND)), 3.0 / len(AROUND)), [-0.45])
    return graph.add("Relu", share)


def _shifted(graph: Graph, padded: str, x: float, y: float) -> str:
    """Shift a padded map by (x, y) cells."""
    starts = [_MARGIN + round(y), _MARGIN + round(x)]
    ends = [round(y) - _MARGIN, round(x) - _MARGIN]
    return graph.add("Slice", padded, graph.integers(*starts), graph.integers(*ends), graph.integers(2, 3))


def _heads(graph: Graph, candidates: str, stride: int) -> tuple[str, str, str]:
    """Add nodes for scores [A, 1], boxes [A, 4] and keypoints [A, 10] from costs [1, 4 places · sizes, h, w]."""
    half = stride / 2
    spots = [
        ((across + 0.5) * half - 0.5, (down + 0.5) * half - 0.5, size * half * _TRUE_SIZE)
        for down in (0, 1)
        for across in (0, 1)
        for size in _SIZES
    ]
    scores, boxes, keypoints = [], [], []
    each = len(_SIZES) // _ANCHORS
    for anchor in range(_ANCHORS):
        own = [i for i in range(len(spots)) if i % len(_SIZES) // each == anchor]
        costs = graph.add("Gather", candidates, graph.integers(*own), axis=1)
        least = graph.add("ReduceMin", costs, axes=[1])
        scores.append(graph.add("Sigmoid", graph.conv(least, [[-_STEEPNESS]], [_STEEPNESS * TOLERATED])))
        choice = graph.add("Softmax", graph.conv(costs, -_SHARPNESS * np.eye(len(own))), axis=1)
        points = np.array([[(x + u * d, y + v * d) for u, v in prior.KEYPOINTS] for x, y, d in np.array(spots)[own]])
        box = np.array([np.array(prior.BOX) * d + (x, y, x, y) for x, y, d in np.array(spots)[own]])
        boxes.append(graph.conv(choice, (box * (-1, -1, 1, 1)).T / stride))
        keypoints.append(graph.conv(choice, points.reshape(len(own), -1).T / stride))

    def rows(parts: list[str], name: str, width: int) -> str:
        last = graph.add("Transpose", graph.add("Concat", *parts, axis=1), perm=[0, 2, 3, 1])
        return graph.add("Reshape", last, graph.integers(-1, width), output=f"{name}_{stride}")

    return rows(scores, "score", 1), rows(boxes, "bbox", 4), rows(keypoints, "kps", 10)


def _gaussian(radius: float) -> npt.NDArray[np.float64]:
    reach = max(1, round(3 * radius))
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / radius) ** 2)
    return np.asarray(np.outer(line, line) / line.sum() ** 2)
