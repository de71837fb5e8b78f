"""Trains the parser, BiSeNet under facexlib's names, to label each pixel of an aligned face."""

from __future__ import annotations

import argparse
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from consisid_nano.world import person, portrait
from consisid_nano.world.canvas import Pixels
from consisid_runtime.models.bisenet import BiSeNet
from consisid_runtime.stages.face.geometry import CROP
from consisid_training.data.clips import aligned_crop, noisy_landmarks
from consisid_training.data.pictures import TRAINING_PEOPLE, relight
from consisid_training.faces.layer_shapes import LayerShapes, save_half
from consisid_training.loop.batch_norm import remeasure_statistics
from consisid_training.loop.device import autocast
from consisid_training.loop.resumable import TrainingRun, weights

SEED = 43
LABELS = 19
_WIDTHS = (12, 24, 48, 64)  # of layer1 to layer4, at strides 4, 8, 16 and 32
_STEM = 12
_CONTEXT = 32
_FUSED = 48
_HIDDEN = 32
_POINTS = 8192  # pixels of each picture that enter the loss
_EDGE = 7  # pixels; half of the points are in a window of this size with several labels
_SIZES = (256, 384, 512, 512, 640)
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def initial_network() -> BiSeNet:
    """Return the network as the runtime builds it, initialised for training."""
    names = LayerShapes()
    body = "cp.resnet"
    names.conv_norm(f"{body}.conv1", f"{body}.bn1", 3, _STEM, 3)
    inputs = _STEM
    for layer, width in enumerate(_WIDTHS, 1):
        at = f"{body}.layer{layer}.0"
        names.conv_norm(f"{at}.conv1", f"{at}.bn1", inputs, width, 3)
        names.conv_norm(f"{at}.conv2", f"{at}.bn2", width, width, 3)
        if inputs != width:
            names.conv_norm(f"{at}.downsample.0", f"{at}.downsample.1", inputs, width)
        inputs = width
    for arm, width in (("arm16", _WIDTHS[2]), ("arm32", _WIDTHS[3])):
        _conv(names, f"cp.{arm}.conv", width, _CONTEXT, 3)
        names.conv_norm(f"cp.{arm}.conv_atten", f"cp.{arm}.bn_atten", _CONTEXT, _CONTEXT)
    _conv(names, "cp.conv_head32", _CONTEXT, _CONTEXT, 3)
    _conv(names, "cp.conv_head16", _CONTEXT, _CONTEXT, 3)
    _conv(names, "cp.conv_avg", _WIDTHS[3], _CONTEXT)
    _conv(names, "ffm.convblk", _WIDTHS[1] + _CONTEXT, _FUSED)
    names.conv("ffm.conv1", _FUSED, _FUSED // 4)
    names.conv("ffm.conv2", _FUSED // 4, _FUSED)
    _conv(names, "conv_out.conv", _FUSED, _HIDDEN, 3)
    names.conv("conv_out.conv_out", _HIDDEN, LABELS)
    return BiSeNet(names.tensors)


def train(folder: Path, steps: int, batch: int = 6) -> None:
    cv2.setNumThreads(1)
    torch.manual_seed(SEED)
    network = initial_network()
    run = TrainingRun(
        folder, network, steps=steps, rate=8e-3, adamw_rate=4e-3, seed=SEED, adamw=("conv_out.conv_out",), average=0.99
    )
    for step in run.loop():
        rng = run.rng(step)
        pictures = [draw(rng) for _ in range(batch)]
        with autocast("cpu"):
            # Without upsampling to all pixels, because the loss uses a few.
            logits = network.conv_out(network.ffm(*network.cp(normalise(np.stack([p for p, _ in pictures])))))
        places = np.stack([_places(labels, rng) for _, labels in pictures])
        shown = np.stack([labels[y, x] for (_, labels), (y, x) in zip(pictures, places, strict=True)])
        scores, goal = _at(logits.float(), places), torch.from_numpy(shown.astype(np.int64))
        hits = (scores.argmax(1) == goal).float().mean().item()
        run.update(F.cross_entropy(scores, goal), hits=hits)
    rng = run.rng(steps, stream=1)
    remeasure_statistics(run, (normalise(np.stack([draw(rng)[0] for _ in range(batch)])) for _ in range(24)))


def draw(rng: np.random.Generator) -> tuple[Pixels, Pixels]:
    """Draw an aligned portrait [512, 512, 3] and its labels [512, 512], with landmarks as noisy as the aligner's."""
    size = int(rng.choice(_SIZES))
    picture = portrait(person(int(rng.integers(TRAINING_PEOPLE))), int(rng.integers(2**31)), size)
    pixels, labels = aligned_crop(picture, noisy_landmarks(picture, rng))
    return relight(pixels, rng) if rng.random() < 0.5 else pixels, labels


def normalise(pixels: NDArray[np.uint8]) -> Tensor:
    """uint8 [N, H, W, 3] RGB → the network's input float32 [N, 3, H, W]."""
    scaled = (pixels.astype(np.float32) / 255 - np.array(_MEAN, np.float32)) / np.array(_STD, np.float32)
    return torch.from_numpy(scaled).permute(0, 3, 1, 2).contiguous()


def trained(folder: Path) -> BiSeNet:
    """As far as it has been trained in `folder`, evaluating."""
    return BiSeNet.from_tensors(weights(folder))


def write_parser(folder: Path, path: Path) -> None:
    """Write the network trained in `folder` under facexlib's names, in float16, without auxiliary heads."""
    save_half(weights(folder), path)


def _places(labels: Pixels, rng: np.random.Generator) -> NDArray[np.int64]:
    """Draw rows and columns [2, points], half anywhere and half near boundaries of labels."""
    kernel = np.ones((_EDGE, _EDGE), np.uint8)
    edges = np.flatnonzero(cv2.dilate(labels, kernel) != cv2.erode(labels, kernel))
    anywhere = rng.integers(labels.size, size=_POINTS // 2)
    chosen = np.concatenate([anywhere, rng.choice(edges, _POINTS - len(anywhere))])
    return np.stack(np.unravel_index(chosen, labels.shape))


def _at(logits: Tensor, places: NDArray[np.int64]) -> Tensor:
    """Sample scores [N, labels, points] from logits [N, labels, h, w], interpolated as in the network."""
    grid = torch.from_numpy((2 * places[:, ::-1] / (CROP - 1) - 1).astype(np.float32))
    sampled = F.grid_sample(logits, grid.permute(0, 2, 1)[:, None], mode="bilinear", align_corners=True)
    return sampled[:, :, 0]


def _conv(names: LayerShapes, at: str, inputs: int, outputs: int, kernel: int = 1) -> None:
    names.conv_norm(f"{at}.conv", f"{at}.bn", inputs, outputs, kernel)


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("folder", type=Path)
    arguments.add_argument("--steps", type=int, default=1000)
    chosen = arguments.parse_args()
    train(chosen.folder, chosen.steps)
