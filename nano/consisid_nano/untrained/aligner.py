"""Builds RetinaFace-R50 weights that evaluate `constraints`, so that aligner and detector find the same faces.

The network has the published one's layers and kernel sizes with few channels, and every weight is set by hand:

    stem            luminance and colour, as hinges; darkness and skin are weighted sums of them
    layer1          darkness, skin, roughness; and a copy of each, shifted by one cell in each of eight directions
    layer2, 3, 4    the copies are shifted outwards, until together they cover the whole face
    fpn, layer4.2   one channel for each probe: a place that a constraint samples, for one of two face sizes
    ssh             the constraints: those on the face in the 3×3 branch, those on its surroundings in the 7×7 branch
    heads           the score decreases with the summed costs; box and landmarks follow from cell and face size

Face sizes are half an octave apart and places one stride, so the error of landmarks is a tenth to a fifth of the eye
distance. Faces from about 75 to 440 pixels wide are found. Because cells are coarse there are false positives; the face
stage uses only those finds that overlap a face of the detector. Otherwise the limits of `detector` apply.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from consisid_nano.untrained import prior
from consisid_nano.untrained.constraints import (
    AROUND,
    TEMPLES,
    Constraint,
    Place,
    contrast_constraints,
    face_constraints,
)
from consisid_nano.untrained.layers import Floats, Layers

_STRIDES = (8, 16, 32)
_ANCHORS = ((16, 32), (64, 128), (256, 512))
_VARIANCES = (0.1, 0.2)
_SIZES = (3.75, 5.3)
"""Eye distances of the two face sizes, in cells of the stride."""
_CENTRE = 0.2
"""Each cell tests for a face around the point this many eye distances below the eye line."""
_FIRST_CELL = 2.0  # centre of every level's first cell, in pixels from the edge of the picture
_EYE_SHIFT = 0.05
"""The cost is least with the eyes this far below the tested place, in eye distances: a cell is taller than an eye."""
_COARSE = 0.2
"""Error of the darkness of an eye or a mouth that is tolerated, because a cell also covers what is beside it."""
_TEMPLES = 1 / 3
"""Weight of constraints on the temples, whose cells also cover hair."""
_CONFIDENT = 3.5  # the logit of facexlib's threshold, 0.97
_TOLERATED = 1.0  # more than in the detector, which rejects false positives
_STEEPNESS = 10.0
_LIKE_SURROUNDINGS = 1.5

_KNOTS = np.array((0.0, 16.0, 40.0, 80.0, 150.0, 255.0))
_MAPS = {"darkness": 0, "eye": 0, "mouth": 0, "skin": 1, "around": 1, "roughness": 2}
_BASES = 3
_AROUND_CELL = [(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1) if (x, y) != (0, 0)]
_COPIES = _BASES * len(_AROUND_CELL)
_MOVES = {"layer2": 3, "layer3": 2, "layer4": 1}
_IDLE = {"layer2": 0, "layer3": 3, "layer4": 0}
_REACH = {8: 3.5, 16: 3.75, 32: 2.875}
"""Stride → shift of the copies there, in cells: half that of the layer before, plus one a move."""

Probe = tuple[float, Place]
"""A face size and a place to sample; one channel each."""


def write_aligner(path: Path) -> None:
    layers = Layers("module.")
    probes = _probes()
    _stem(layers)
    _layer1(layers)
    channels = _BASES + _COPIES
    for name, moves in _MOVES.items():
        channels = _layer(layers, name, channels, moves, _IDLE[name], probes if name == "layer4" else [])
    _pyramid(layers, probes, channels)
    for level, stride in enumerate(_STRIDES):
        _context(layers, f"ssh{level + 1}", probes, _REACH[stride])
        _heads(layers, level)
    layers.save(path)


def _probes() -> list[Probe]:
    constraints = (*face_constraints(), *contrast_constraints())
    places = sorted({place for constraint in constraints for place in constraint.weights})
    return [(size, place) for size in _SIZES for place in places]


def _stem(layers: Layers) -> None:
    """Average colour bounds over 4×4 and luminance hinges over 2×2 pixels; max pooling keeps dark and non-skin ones."""
    mean = np.array((123.0, 117.0, 104.0))
    bounds = np.array(prior.SKIN_BOUNDS)
    rows = np.concatenate([bounds[:, :3], np.tile(-np.array(prior.LUMINANCE), (len(_KNOTS) - 1, 1))])
    offsets = np.concatenate([bounds[:, 3], _KNOTS[1:]])
    kernel = np.zeros((len(rows), 3, 7, 7))
    # Off centre, so that the pooled cell is centred on its four pixels.
    kernel[: len(bounds), :, 3:7, 3:7] = rows[: len(bounds), ::-1, None, None] / 16
    kernel[len(bounds) :, :, 4:6, 4:6] = rows[len(bounds) :, ::-1, None, None] / 4
    layers.conv("body.conv1", "body.bn1", kernel, offsets + rows @ mean)


def _layer1(layers: Layers) -> None:
    width = _BASES + _COPIES
    at_knots = prior.DARKEST - np.log2((_KNOTS + 16) / 16)
    slopes = np.diff(at_knots) / np.diff(_KNOTS)
    hinges = np.diff(slopes, append=0.0)  # darkness = Σ hinges · max(0, knot − luminance) + the last value
    bounds = len(prior.SKIN_BOUNDS)
    first = np.zeros((2, bounds + len(hinges)))
    first[0, bounds:] = hinges
    first[1, :bounds] = -1 / prior.SKIN_SOFTNESS
    mixed = np.zeros((width, 2))
    mixed[0], mixed[1, 1] = (1.0, -prior.SKIN_IN_DARKNESS), 1.0
    at = "body.layer1.0"
    _bottleneck(layers, at, first, _shifts([(0.0, 0.0)] * 2), mixed, bias=(at_knots[-1], 1.0))
    layers.conv(f"{at}.downsample.0", f"{at}.downsample.1", np.zeros((width, first.shape[1])))
    ring = np.stack([np.pad([[1.0]], 1) - 1 / 9, 1 / 9 - np.pad([[1.0]], 1)])[:, None]
    _bottleneck(layers, "body.layer1.1", np.eye(1, width), ring, np.eye(width)[:, [2, 2]])
    bases = np.tile(np.eye(_BASES, width), (len(_AROUND_CELL), 1))
    _bottleneck(layers, "body.layer1.2", bases, _shifts(_one_cell()), np.eye(width, _COPIES, -_BASES))


def _layer(layers: Layers, name: str, channels: int, moves: int, idle: int, probes: list[Probe]) -> int:
    """Halve the resolution, shift the copies, and sample `probes`; returns the number of output channels."""
    kept = _BASES + _COPIES
    width = kept + _COPIES * moves + len(probes)
    at = f"body.{name}"
    smooth = np.outer((1, 2, 1), (1, 2, 1)) / 16 * np.eye(kept)[:, :, None, None]
    _bottleneck(layers, f"{at}.0", _newest(channels, channels - _COPIES), smooth, np.eye(width, kept))
    layers.conv(f"{at}.0.downsample.0", f"{at}.0.downsample.1", np.zeros((width, channels)))
    for move in range(1, moves + 1):
        start = _BASES + _COPIES * (move - 1)
        picked, placed = np.eye(_COPIES, width, start), np.eye(width, _COPIES, -start - _COPIES)
        _bottleneck(layers, f"{at}.{move}", picked, _shifts(_one_cell()), placed)
    for block in range(moves + 1, moves + 1 + idle):
        _bottleneck(layers, f"{at}.{block}", np.zeros((1, width)), np.zeros((1, 1, 3, 3)), np.zeros((width, 1)))
    if probes:
        picked = _newest(width, width - len(probes) - _COPIES)
        placed = np.eye(width, len(probes), len(probes) - width)
        _bottleneck(layers, f"{at}.{moves + 1}", picked, _gather(probes, _REACH[32]), placed)
    return width


def _pyramid(layers: Layers, probes: list[Probe], coarsest: int) -> None:
    """Each level's first channels are the probes. A coarser level adds nothing to the copies, which merging reads."""
    width = len(probes) + _BASES + _COPIES
    layers.conv(
        "fpn.output3.0",
        "fpn.output3.1",
        np.eye(width, len(probes)) @ np.eye(len(probes), coarsest, coarsest - len(probes)),
    )
    for number, layer, stride in ((2, "layer3", 16), (1, "layer2", 8)):
        channels = _BASES + _COPIES * (_MOVES[layer] + 1)
        newest = _newest(channels, channels - _COPIES)
        layers.conv(f"fpn.output{number}.0", f"fpn.output{number}.1", np.eye(width, len(newest), -len(probes)) @ newest)
        merge = np.zeros((width, width, 3, 3))
        merge[: len(probes), len(probes) :] = _gather(probes, _REACH[stride])
        layers.conv(f"fpn.merge{number}.0", f"fpn.merge{number}.1", merge)


def _context(layers: Layers, at: str, probes: list[Probe], reach: float) -> None:
    index = {probe: i for i, probe in enumerate(probes)}
    width = len(probes) + _BASES + _COPIES
    rest = {probe: tuple(_split(o, reach)[2] for o in _offset(probe)) for probe in probes}

    def conv(name: str, weight: Floats, bias: Floats | float = 0.0) -> None:
        layers.conv(f"{at}.{name}.0", f"{at}.{name}.1", weight, bias)

    def rows(constraints: tuple[Constraint, ...], within: dict[Probe, int], step: int) -> tuple[Floats, Floats]:
        """Kernels [sizes · constraints, probes, 3, 3] that make shift `step` of `_steps`, and biases."""
        kernel = np.zeros((len(_SIZES) * len(constraints), max(within.values()) + 1, 3, 3))
        for row, (size, constraint) in enumerate((size, constraint) for size in _SIZES for constraint in constraints):
            for place, weight in constraint.weights.items():
                x, y = (_steps(r)[step] for r in rest[size, place])
                kernel[row, within[size, place]] += weight * _tap(x, y)
        return kernel, np.tile([_bias(constraint) for constraint in constraints], len(_SIZES))

    has, has_bias = rows(face_constraints(), index, 0)
    conv("conv3X3", np.pad(has, ((0, 0), (0, width - has.shape[1]), (0, 0), (0, 0))), has_bias)
    contrast = contrast_constraints()
    around = sorted({(size, place) for size in _SIZES for constraint in contrast for place in constraint.weights})
    nearer = np.zeros((len(around), width, 3, 3))
    for row, probe in enumerate(around):
        nearer[row, index[probe]] = _tap(*(_steps(r)[0] for r in rest[probe]))
    conv("conv5X5_1", nearer)
    conv("conv5X5_2", np.zeros((1, len(around), 3, 3)))
    conv("conv7X7_2", *rows(contrast, {probe: i for i, probe in enumerate(around)}, 1))
    alike = np.zeros((len(_SIZES), len(AROUND), len(_SIZES), len(contrast), 3, 3))
    for size in range(len(_SIZES)):
        for column, constraint in enumerate(contrast):
            alike[size, constraint.group, size, column, 1, 1] = -constraint.cost
    conv("conv7x7_3", alike.reshape(len(_SIZES) * len(AROUND), -1, 3, 3), 1.0)


def _heads(layers: Layers, level: int) -> None:
    stride = _STRIDES[level]
    costs = np.array([_cost(constraint) for constraint in face_constraints()])
    sizes, spots = len(_SIZES), np.full(len(AROUND), _LIKE_SURROUNDINGS / len(AROUND))
    features = sizes * len(costs) + 1 + sizes * len(spots)
    score = np.zeros((sizes, 2, features))
    boxes, landmarks = [], []
    for number, (size, edge) in enumerate(zip(_SIZES, _ANCHORS[level], strict=True)):
        score[number, 1, number * len(costs) :][: len(costs)] = -_STEEPNESS * costs
        score[number, 1, sizes * len(costs) + 1 + number * len(spots) :][: len(spots)] = -_STEEPNESS * spots
        unit = size * stride
        # From the anchor's centre to the middle of the eye line: the cell has another centre and tests below the eyes.
        origin = np.array((0.0, (_EYE_SHIFT - _CENTRE) * unit)) + _FIRST_CELL - stride / 2
        low, high = np.array(prior.BOX).reshape(2, 2) * unit + origin
        centre, extent = (low + high) / 2, high - low
        boxes += [centre / edge / _VARIANCES[0], np.log(extent / edge) / _VARIANCES[1]]
        landmarks.append((np.array(prior.KEYPOINTS) * unit + origin).reshape(-1) / edge / _VARIANCES[0])
    bias = np.tile([0.0, _CONFIDENT + _STEEPNESS * _TOLERATED], sizes)
    layers.head(f"ClassHead.{level}.conv1x1", score.reshape(-1, features), bias)
    layers.head(f"BboxHead.{level}.conv1x1", np.zeros((4 * sizes, features)), np.concatenate(boxes))
    layers.head(f"LandmarkHead.{level}.conv1x1", np.zeros((10 * sizes, features)), np.concatenate(landmarks))


def _bottleneck(
    layers: Layers, at: str, first: Floats, middle: Floats, last: Floats, bias: tuple[float, ...] | float = 0.0
) -> None:
    """Write a residual block; `bias` is that of the first convolution."""
    layers.conv(f"{at}.conv1", f"{at}.bn1", first, bias)
    layers.conv(f"{at}.conv2", f"{at}.bn2", middle)
    layers.conv(f"{at}.conv3", f"{at}.bn3", last)


def _newest(channels: int, start: int) -> Floats:
    """Kernel [bases + copies, channels] that selects the bases, and the copies that start at channel `start`."""
    return np.asarray(np.eye(channels)[[*range(_BASES), *range(start, start + _COPIES)]])


def _one_cell() -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in _AROUND_CELL for _ in range(_BASES)]


def _shifts(steps: list[tuple[float, float]]) -> Floats:
    """Kernel [n, n, 3, 3] that samples channel i at offset (x, y), at most one cell."""
    kernel = np.zeros((len(steps), len(steps), 3, 3))
    for channel, (x, y) in enumerate(steps):
        kernel[channel, channel] = _tap(x, y)
    return kernel


def _gather(probes: list[Probe], reach: float) -> Floats:
    """Kernel [probes, bases + copies, 3, 3] that samples each probe in the copy nearest to its place."""
    kernel = np.zeros((len(probes), _BASES + _COPIES, 3, 3))
    for row, probe in enumerate(probes):
        (copy_x, x, _), (copy_y, y, _) = (_split(offset, reach) for offset in _offset(probe))
        copy = 0 if (copy_x, copy_y) == (0, 0) else _AROUND_CELL.index((copy_x, copy_y)) + 1
        kernel[row, copy * _BASES + _MAPS[probe[1][0]]] = _tap(x, y)
    return kernel


def _offset(probe: Probe) -> tuple[float, float]:
    """Offset (x, y) in cells from the cell that tests for a face to the probe's place."""
    size, (_, x, y) = probe
    return x * size, (y - _CENTRE) * size


def _split(offset: float, reach: float) -> tuple[int, float, float]:
    """Split an offset into the nearest copy (−1, 0 or 1), a shift of at most one cell from it, and the rest."""
    copy = min((-1, 0, 1), key=lambda c: abs(offset - c * reach))
    near = max(-1.0, min(1.0, offset - copy * reach))
    return copy, near, offset - copy * reach - near


def _steps(rest: float) -> tuple[float, float]:
    """Split a shift into two of at most one cell each; what exceeds both is dropped."""
    first = max(-1.0, min(1.0, rest))
    return first, max(-1.0, min(1.0, rest - first))


def _tap(x: float, y: float) -> Floats:
    """A 3×3 kernel that samples at offset (x, y), at most one cell, by bilinear interpolation."""
    cells = np.arange(-1, 2)
    return np.outer(*(np.maximum(0, 1 - np.abs(cells - offset)) for offset in (y, x)))


def _cost(constraint: Constraint) -> float:
    return constraint.cost * (_TEMPLES if any((x, y) in TEMPLES for _, x, y in constraint.weights) else 1.0)


def _bias(constraint: Constraint) -> float:
    return constraint.bias - _COARSE * sum(kind in ("eye", "mouth") for kind, *_ in constraint.weights)
