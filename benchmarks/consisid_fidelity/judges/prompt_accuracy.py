"""Prompt accuracy: classifies the attributes that a video shows and compares them with labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from consisid_fidelity.errors import CollectionInvalid
from consisid_fidelity.judges.networks import OnnxNetwork
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.files.json_file import read_json
from consisid_runtime.mp4 import Frames


class AttributeJudge:
    """attributes.onnx: clips [N, F, 3, H, W] RGB 0..1 → logits [N, classes] of each attribute; and the classes' names.

    Args:
        network: ONNX file with fixed F, H and W.
        classes: JSON file, name of an output → [name of each class].
        device: one of `engines.DEVICES`.
        threads: CPU threads.

    Attributes:
        classes: attribute → names of its classes.

    Raises `CheckpointInvalid` for a damaged file or files that do not belong together.
    """

    def __init__(self, network: Path, classes: Path, device: str, threads: int) -> None:
        self._network = OnnxNetwork(network, device, threads)
        self.classes = read_classes(classes)
        if len(self._network.shape) != 5 or set(self.classes) != set(self._network.outputs):
            raise CheckpointInvalid(
                f"{classes.name} names {', '.join(sorted(self.classes))}, {network.name} takes "
                f"{list(self._network.shape)} and returns {', '.join(sorted(self._network.outputs))}; a network "
                "of clips [N, F, 3, H, W] with one output per name is needed"
            )

    def predict(self, frames: Frames) -> dict[str, str]:
        """The most likely class of each attribute in a video, uint8 [F, H, W, 3] RGB.

        Raises `CollectionInvalid` for a video whose shape differs from the network's input.
        """
        _, count, _, height, width = self._network.shape
        if any(want not in (None, got) for want, got in zip((count, height, width), frames.shape[:3], strict=True)):
            raise CollectionInvalid(
                f"prompt accuracy needs {count} frames of {width}×{height}, this video has {len(frames)} of "
                f"{frames.shape[2]}×{frames.shape[1]}"
            )
        clip = frames.transpose(0, 3, 1, 2)[None].astype(np.float32) / 255
        chosen: dict[str, str] = {}
        for name, logits in self._network(clip).items():
            names = self.classes[name]
            if logits.shape != (1, len(names)) or not np.isfinite(logits).all():
                raise CheckpointInvalid(f"output {name} is {list(logits.shape)}, not {len(names)} finite logits")
            chosen[name] = names[int(logits[0].argmax())]
        return chosen

    def check_labels(self, labels: Mapping[str, str], where: str) -> None:
        """Raises `CollectionInvalid`, naming `where`, for a label that is not a class of its attribute."""
        for name, label in labels.items():
            if name in self.classes and label not in self.classes[name]:
                raise CollectionInvalid(
                    f"{where}: {name} is {label!r}, the classes are {', '.join(self.classes[name])}"
                )


def hits(predicted: Mapping[str, str], labels: Mapping[str, str]) -> dict[str, bool]:
    """Attribute → whether the prediction equals the label, for attributes in both."""
    return {name: predicted[name] == label for name, label in labels.items() if name in predicted}


def accuracy(outcomes: Sequence[Mapping[str, bool]]) -> dict[str, npt.NDArray[np.bool_]]:
    """The `hits` of several videos, collected: attribute → outcomes of the videos that have it."""
    names = dict.fromkeys(name for outcome in outcomes for name in outcome)
    return {name: np.array([outcome[name] for outcome in outcomes if name in outcome], np.bool_) for name in names}


def read_classes(path: Path) -> dict[str, list[str]]:
    """Attribute → names of its classes, from a JSON file. Raises `CheckpointInvalid`."""
    try:
        classes = read_json(path)
    except (OSError, ValueError) as error:
        raise CheckpointInvalid(f"{path} is not a JSON file: {error}") from error
    if not isinstance(classes, dict) or not all(
        isinstance(names, list) and names and all(isinstance(name, str) for name in names) for names in classes.values()
    ):
        raise CheckpointInvalid(f"{path} must be an object: attribute → list of names of its classes")
    return classes
