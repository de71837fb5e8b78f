"""Builds BiSeNet weights that label skin, and what is surrounded by skin, as skin and everything else as background."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from consisid_nano.untrained import prior
from consisid_nano.untrained.layers import Floats, Layers

_LABELS = 19
_SKIN = 1
_MEAN, _STD = np.array((0.485, 0.456, 0.406)), np.array((0.229, 0.224, 0.225))
_HERE, _NEAR, _AROUND, _NEEDED = 0.5, 0.3, 0.7, 0.6
"""Weights of skin at strides 8, 16 and 32, and the sum that makes a label; the coarse ones cover eyes and mouth."""
_OPEN = 20.0  # argument at which a sigmoid is 1


def write_parser(path: Path) -> None:
    """Write the weights for RGB in 0…1, normalised by ImageNet's mean and deviation."""
    layers = Layers()
    _body(layers)
    two = np.eye(2)
    for name, row in (("arm32", 0), ("arm16", 1)):
        _conv(layers, f"cp.{name}.conv", _smooth(two[:, [row]]))
        layers.put(f"cp.{name}.conv_atten.weight", np.zeros((2, 2, 1, 1)))
        layers.norm(f"cp.{name}.bn_atten", np.full(2, _OPEN))
    _conv(layers, "cp.conv_avg", np.zeros((2, 1)))
    for name in ("conv_head32", "conv_head16"):
        # The input was enlarged by repetition, which shifts it by half a cell; the mean of neighbours compensates.
        _conv(layers, f"cp.{name}", two[:, :, None, None] * np.pad(np.full((2, 2), 0.25), ((1, 0), (1, 0))))
    # With zero weights the attention is one half and is added to the features, which become 1.5 times as large.
    _conv(layers, "ffm.convblk", np.array([[_HERE, _AROUND, _NEAR]]) / 1.5)
    layers.put("ffm.conv1.weight", np.zeros((1, 1, 1, 1)))
    layers.put("ffm.conv2.weight", np.zeros((1, 1, 1, 1)))
    _output(layers, "conv_out", 1)
    for name in ("conv_out16", "conv_out32"):  # used in training only, but in the published file
        _output(layers, name, 2)
    layers.save(path)


def _body(layers: Layers) -> None:
    bounds = np.array(prior.SKIN_BOUNDS)
    channels = len(bounds) + 1
    kernel = np.zeros((channels, 3, 7, 7))
    kernel[:-1, :, 2:5, 2:5] = (bounds[:, :3] * 255 * _STD)[:, :, None, None] / 9
    at = "cp.resnet"
    layers.conv(f"{at}.conv1", f"{at}.bn1", kernel, [*(bounds[:, :3] @ (255 * _MEAN) + bounds[:, 3]), 0.0])
    skin = np.zeros((channels, channels))
    skin[-1, :-1] = -1 / prior.SKIN_SOFTNESS
    last = np.eye(channels)[-1:]
    _block(layers, f"{at}.layer1.0", _centred(skin), _centred(last.T @ last), last[0])
    _idle(layers, f"{at}.layer1.1", channels)
    for layer, inputs in (("layer2", last), ("layer3", np.ones((1, 1))), ("layer4", np.ones((1, 1)))):
        _block(layers, f"{at}.{layer}.0", _smooth(inputs), _centred(np.ones((1, 1))))
        shortcut = np.zeros((1, inputs.shape[1]))
        layers.conv(f"{at}.{layer}.0.downsample.0", f"{at}.{layer}.0.downsample.1", shortcut)
        _idle(layers, f"{at}.{layer}.1", 1)


def _output(layers: Layers, at: str, channels: int) -> None:
    """Make background the default through a constant of the normalisation, because the last layer has no bias."""
    hidden = np.zeros((2, channels, 3, 3))
    hidden[0, 0] = _smooth(np.ones((1, 1)))[0, 0]
    layers.conv(f"{at}.conv.conv", f"{at}.conv.bn", hidden, (0.0, 1.0))
    logits = np.zeros((_LABELS, 2))
    logits[:, 1] = -1.0
    logits[0] = 0.0, _NEEDED
    logits[_SKIN] = 1.0, 0.0
    layers.put(f"{at}.conv_out.weight", logits[:, :, None, None])


def _conv(layers: Layers, at: str, weight: Floats) -> None:
    layers.conv(f"{at}.conv", f"{at}.bn", weight)


def _block(layers: Layers, at: str, first: Floats, second: Floats, bias: Floats | float = 0.0) -> None:
    layers.conv(f"{at}.conv1", f"{at}.bn1", first, bias)
    layers.conv(f"{at}.conv2", f"{at}.bn2", second)


def _idle(layers: Layers, at: str, channels: int) -> None:
    _block(layers, at, np.zeros((channels, channels, 3, 3)), np.zeros((channels, channels, 3, 3)))


def _centred(weight: Floats) -> Floats:
    return np.pad(weight[:, :, None, None], ((0, 0), (0, 0), (1, 1), (1, 1)))


def _smooth(weight: Floats) -> Floats:
    return weight[:, :, None, None] * np.outer((1, 2, 1), (1, 2, 1)) / 16
