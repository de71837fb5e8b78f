"""Writes an ONNX network with ArcFace's inputs and outputs and random weights."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np

from consisid_nano.untrained.configs import ARCFACE_OUT
from consisid_nano.untrained.graph import Graph

_WIDTHS = (3, 16, 24, 32, 32)
_EDGE = 112


def write_recogniser(path: Path, seed: int) -> None:
    """Write the network to `path`: [N, 3, 112, 112] RGB as (level − 127.5) / 127.5 → [N, 512]."""
    rng = np.random.default_rng(seed)
    graph = Graph()
    x = "input.1"
    for channels, width in pairwise(_WIDTHS):
        kernel = rng.standard_normal((width, channels, 3, 3)) * np.sqrt(2 / (9 * channels))
        x = graph.add("Relu", graph.conv(x, kernel, 0.1 * rng.standard_normal(width), stride=2))
    # One channel a group, over the whole map, minus the mean over places: a projection that depends on positions.
    reach = _EDGE // 2 ** (len(_WIDTHS) - 1)
    projection = rng.standard_normal((ARCFACE_OUT, 1, reach, reach))
    projection -= projection.mean(axis=(2, 3), keepdims=True)
    x = graph.add("Conv", x, graph.constant(projection / reach), group=_WIDTHS[-1])
    graph.add("Flatten", x, axis=1, output="embedding")
    graph.save(path, {"input.1": ["faces", 3, _EDGE, _EDGE]}, {"embedding": ["faces", ARCFACE_OUT]})
