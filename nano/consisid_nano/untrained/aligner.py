"""RetinaFace-R50 weights that make the demands of `demands`, so that it finds what the nano detector finds.

The published network's tree of layers and kernel sizes, narrow, every weight chosen. What flows through it:

    stem            luminance and colour, as hinges from which darkness and skin are sums
    layer1          darkness, skin, roughness; and a copy of each as seen from each of eight cells around
    layer2, 3, 4    the copies move outwards, so that between them they see the whole face
    fpn, layer4.2   one channel for each place that a demand looks at, for each of two sizes of face
    ssh             the demands: what a face has in the 3×3 branch, how it differs from its surroundings in the 7×7
    heads           the score falls with the summed costs; box and landmarks belong to the place and the size

Sizes lie half an octave apart and places a stride, so landmarks are off by a tenth to a fifth of the distance between
the eyes. Faces from about 75 to 440 pixels wide are found, and, since a cell is coarse, some of what is no face: what
the aligner finds counts only where the detector agrees. Otherwise the limits of `detector` hold.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from consisid_nano.untrained import prior
from consisid_nano.untrained.demands import AROUND, TEMPLES, Demand, Place, demands, difference_from_surroundings
from consisid_nano.untrained.layers import Floats, Layers

_STRIDES = (8, 16, 32)
_ANCHORS = ((16, 32), (64, 128), (256, 512))
_VARIANCES = (0.1, 0.2)
_SIZES = (3.75, 5.3)
"""Eye distances tried, in cells of the stride."""
_CENTRE = 0.2
"""What a cell looks for: the point this many eye distances below the eye line."""
_FIRST_CELL = 2.0  # where the first cell of every level looks, in pixels from the frame
_SETTLES = 0.05
"""The cost is least where the eyes lie this much lower than they are looked for: a cell is taller than an eye."""
_COARSE = 0.2
"""Darkness by which an eye or a mouth may seem off, since a cell also sees what is beside it."""
_TEMPLES = 1 / 3
"""What a demand on the temples counts: the same cells see hair."""
_CONFIDENT = 3.5  # the logit of facexlib's threshold, 0.97
_TOLERATED = 1.0  # more than the detector: what is found here counts only where that one agrees
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
"""How far the copies have moved at the end of each stage, in cells: half the last stage's, and one a move."""

Lane = tuple[float, Place]


def write_aligner(path: Path) -> None:
    layers = Layers("module.")
    lanes = _lanes()
    _stem(layers)
    _layer1(layers)
    channels = _BASES + _COPIES
    for name, moves in _MOVES.items():
        channels = _stage(layers, name, channels, moves, _IDLE[name], lanes if name == "layer4" else [])
    _pyramid(layers, lanes, channels)
    for level, stride in enumerate(_STRIDES):
        _context(layers, f"ssh{level + 1}", lanes, _REACH[stride])
        _heads(layers, level)
    layers.save(path)


def _lanes() -> list[Lane]:
    wanted = (*demands(), *difference_from_surroundings())
    return [(size, place) for size in _SIZES for place in sorted({p for demand in wanted for p in demand.weights})]


def _stem(layers: Layers) -> None:
    """Colour bounds on 4×4 and luminance hinges on 2×2 pixels; pooling keeps the darkest and the least like skin."""
    mean = np.array((123.0, 117.0, 104.0))
    bounds = np.array(prior.SKIN_BOUNDS)
    rows = np.concatenate([bounds[:, :3], np.tile(-np.array(prior.LUMINANCE), (len(_KNOTS) - 1, 1))])
    offsets = np.concatenate([bounds[:, 3], _KNOTS[1:]])
    kernel = np.zeros((len(rows), 3, 7, 7))
    # Not centred, so that the pooled cell is centred on its four pixels.
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


def _stage(layers: Layers, name: str, channels: int, moves: int, idle: int, lanes: list[Lane]) -> int:
    """Halve the size, move the copies, and gather `lanes`; returns the number of channels that leave."""
    kept = _BASES + _COPIES
    width = kept + _COPIES * moves + len(lanes)
    at = f"body.{name}"
    smooth = np.outer((1, 2, 1), (1, 2, 1)) / 16 * np.eye(kept)[:, :, None, None]
    _bottleneck(layers, f"{at}.0", _newest(channels, channels - _COPIES), smooth, np.eye(width, kept))
    layers.conv(f"{at}.0.downsample.0", f"{at}.0.downsample.1", np.zeros((width, channels)))
    for move in range(1, moves + 1):
        source = _BASES + _COPIES * (move - 1)
        picked, placed = np.eye(_COPIES, width, source), np.eye(width, _COPIES, -source - _COPIES)
        _bottleneck(layers, f"{at}.{move}", picked, _shifts(_one_cell()), placed)
    for block in range(moves + 1, moves + 1 + idle):
        _bottleneck(layers, f"{at}.{block}", np.zeros((1, width)), np.zeros((1, 1, 3, 3)), np.zeros((width, 1)))
    if lanes:
        picked = _newest(width, width - len(lanes) - _COPIES)
        placed = np.eye(width, len(lanes), len(lanes) - width)
        _bottleneck(layers, f"{at}.{moves + 1}", picked, _gather(lanes, _REACH[32]), placed)
    return width


def _pyramid(layers: Layers, lanes: list[Lane], coarsest: int) -> None:
    """Every level ends with the lanes first. What a coarser one adds stays clear of the copies that merging reads."""
    width = len(lanes) + _BASES + _COPIES
    layers.conv(
        "fpn.output3.0",
        "fpn.output3.1",
        np.eye(width, len(lanes)) @ np.eye(len(lanes), coarsest, coarsest - len(lanes)),
    )
    for number, stage, stride in ((2, "layer3", 16), (1, "layer2", 8)):
        channels = _BASES + _COPIES * (_MOVES[stage] + 1)
        newest = _newest(channels, channels - _COPIES)
        layers.conv(f"fpn.output{number}.0", f"fpn.output{number}.1", np.eye(width, len(newest), -len(lanes)) @ newest)
        merge = np.zeros((width, width, 3, 3))
        merge[: len(lanes), len(lanes) :] = _gather(lanes, _REACH[stride])
        layers.conv(f"fpn.merge{number}.0", f"fpn.merge{number}.1", merge)


def _context(layers: Layers, at: str, lanes: list[Lane], reach: float) -> None:
    index = {lane: i for i, lane in enumerate(lanes)}
    width = len(lanes) + _BASES + _COPIES
    rest = {lane: tuple(_split(o, reach)[2] for o in _offset(lane)) for lane in lanes}

    def conv(name: str, weight: Floats, bias: Floats | float = 0.0) -> None:
        layers.conv(f"{at}.{name}.0", f"{at}.{name}.1", weight, bias)

    def rows(wanted: tuple[Demand, ...], within: dict[Lane, int], step: int) -> tuple[Floats, Floats]:
        """Kernels [sizes · demands, lanes, 3, 3] that look one cell further at most, in the given step, and biases."""
        kernel = np.zeros((len(_SIZES) * len(wanted), max(within.values()) + 1, 3, 3))
        for row, (size, demand) in enumerate((size, demand) for size in _SIZES for demand in wanted):
            for place, weight in demand.weights.items():
                x, y = (_steps(r)[step] for r in rest[size, place])
                kernel[row, within[size, place]] += weight * _tap(x, y)
        return kernel, np.tile([_bias(demand) for demand in wanted], len(_SIZES))

    has, has_bias = rows(demands(), index, 0)
    conv("conv3X3", np.pad(has, ((0, 0), (0, width - has.shape[1]), (0, 0), (0, 0))), has_bias)
    wanted = difference_from_surroundings()
    around = sorted({(size, place) for size in _SIZES for demand in wanted for place in demand.weights})
    nearer = np.zeros((len(around), width, 3, 3))
    for row, lane in enumerate(around):
        nearer[row, index[lane]] = _tap(*(_steps(r)[0] for r in rest[lane]))
    conv("conv5X5_1", nearer)
    conv("conv5X5_2", np.zeros((1, len(around), 3, 3)))
    conv("conv7X7_2", *rows(wanted, {lane: i for i, lane in enumerate(around)}, 1))
    alike = np.zeros((len(_SIZES), len(AROUND), len(_SIZES), len(wanted), 3, 3))
    for size in range(len(_SIZES)):
        for column, demand in enumerate(wanted):
            alike[size, demand.group, size, column, 1, 1] = -demand.cost
    conv("conv7x7_3", alike.reshape(len(_SIZES) * len(AROUND), -1, 3, 3), 1.0)


def _heads(layers: Layers, level: int) -> None:
    stride = _STRIDES[level]
    costs = np.array([_cost(demand) for demand in demands()])
    sizes, spots = len(_SIZES), np.full(len(AROUND), _LIKE_SURROUNDINGS / len(AROUND))
    features = sizes * len(costs) + 1 + sizes * len(spots)
    score = np.zeros((sizes, 2, features))
    boxes, landmarks = [], []
    for number, (size, edge) in enumerate(zip(_SIZES, _ANCHORS[level], strict=True)):
        score[number, 1, number * len(costs) :][: len(costs)] = -_STEEPNESS * costs
        score[number, 1, sizes * len(costs) + 1 + number * len(spots) :][: len(spots)] = -_STEEPNESS * spots
        unit = size * stride
        # From the anchor's centre to the middle of the eye line: the cell looks elsewhere, and below the eyes.
        origin = np.array((0.0, (_SETTLES - _CENTRE) * unit)) + _FIRST_CELL - stride / 2
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
    """A residual block; `bias` is the first convolution's."""
    layers.conv(f"{at}.conv1", f"{at}.bn1", first, bias)
    layers.conv(f"{at}.conv2", f"{at}.bn2", middle)
    layers.conv(f"{at}.conv3", f"{at}.bn3", last)


def _newest(channels: int, start: int) -> Floats:
    """[bases + copies, channels]: picks the bases, and the copies that start at channel `start`."""
    return np.asarray(np.eye(channels)[[*range(_BASES), *range(start, start + _COPIES)]])


def _one_cell() -> list[tuple[float, float]]:
    return [(float(x), float(y)) for x, y in _AROUND_CELL for _ in range(_BASES)]


def _shifts(steps: list[tuple[float, float]]) -> Floats:
    """[n, n, 3, 3]: channel i as seen from (x, y) cells away, at most one."""
    kernel = np.zeros((len(steps), len(steps), 3, 3))
    for channel, (x, y) in enumerate(steps):
        kernel[channel, channel] = _tap(x, y)
    return kernel


def _gather(lanes: list[Lane], reach: float) -> Floats:
    """[lanes, bases + copies, 3, 3]: each lane from the copy nearest to its place."""
    kernel = np.zeros((len(lanes), _BASES + _COPIES, 3, 3))
    for row, lane in enumerate(lanes):
        (copy_x, x, _), (copy_y, y, _) = (_split(offset, reach) for offset in _offset(lane))
        copy = 0 if (copy_x, copy_y) == (0, 0) else _AROUND_CELL.index((copy_x, copy_y)) + 1
        kernel[row, copy * _BASES + _MAPS[lane[1][0]]] = _tap(x, y)
    return kernel


def _offset(lane: Lane) -> tuple[float, float]:
    """Cells from the cell that looks for a face to the lane's place."""
    size, (_, x, y) = lane
    return x * size, (y - _CENTRE) * size


def _split(offset: float, reach: float) -> tuple[int, float, float]:
    """Which copy (−1, 0 or 1), how far from there within a cell, and what then remains."""
    copy = min((-1, 0, 1), key=lambda c: abs(offset - c * reach))
    near = max(-1.0, min(1.0, offset - copy * reach))
    return copy, near, offset - copy * reach - near


def _steps(rest: float) -> tuple[float, float]:
    """Two steps of at most a cell each; what lies farther is looked for nearer."""
    first = max(-1.0, min(1.0, rest))
    return first, max(-1.0, min(1.0, rest - first))


def _tap(x: float, y: float) -> Floats:
    """A 3×3 kernel that looks (x, y) cells away, at most one, between cells by linear interpolation."""
    cells = np.arange(-1, 2)
    return np.outer(*(np.maximum(0, 1 - np.abs(cells - offset)) for offset in (y, x)))


def _cost(demand: Demand) -> float:
    return demand.cost * (_TEMPLES if any((x, y) in TEMPLES for _, x, y in demand.weights) else 1.0)


def _bias(demand: Demand) -> float:
    return demand.bias - _COARSE * sum(kind in ("eye", "mouth") for kind, *_ in demand.weights)
