"""Classifies the attributes of a person in a video, from aligned faces."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from consisid_fidelity.judges.faces import Faces
from consisid_fidelity.judges.networks import OnnxNetwork
from consisid_fidelity.judges.prompt_accuracy import read_classes
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.mp4 import Frames
from consisid_runtime.stages.face.geometry import arcface_transform, warp

NETWORK, CLASSES = "person.onnx", "person.json"
_EDGE = 112


class PersonAttributeJudge:
    """person.onnx: faces [N, 3, 112, 112] RGB 0..1 → logits [N, classes] of each attribute; person.json: class names.

    Args:
        folder: holds both files.
        device: one of `engines.DEVICES`.
        threads: CPU threads.

    Attributes:
        classes: attribute → names of its classes.

    Raises `CheckpointInvalid` for a missing or damaged file or files that do not belong together.
    """

    def __init__(self, folder: Path, device: str, threads: int) -> None:
        for name in (NETWORK, CLASSES):
            if not (folder / name).is_file():
                raise CheckpointInvalid(f"{folder} lacks {name}, which the attributes of people are judged with")
        self._network = OnnxNetwork(folder / NETWORK, device, threads)
        self.classes = read_classes(folder / CLASSES)
        if set(self.classes) != set(self._network.outputs):
            raise CheckpointInvalid(
                f"{CLASSES} names {', '.join(sorted(self.classes))}, {NETWORK} returns "
                f"{', '.join(sorted(self._network.outputs))}"
            )

    def predict(self, frames: Frames, faces: Faces) -> dict[str, str]:
        """The most likely class of each attribute, by mean logits over the frames with a face; empty without a face.

        Args:
            frames: uint8 [F, H, W, 3] RGB.
            faces: found in these frames.
        """
        crops = [
            warp(np.ascontiguousarray(frame), arcface_transform(keypoints, _EDGE), _EDGE, border=(0, 0, 0))
            for frame, keypoints in zip(frames[faces.found], faces.keypoints[faces.found], strict=True)
        ]
        if not crops:
            return {}
        logits = self._network(np.stack(crops).transpose(0, 3, 1, 2).astype(np.float32) / 255)
        return {name: self.classes[name][int(found.mean(axis=0).argmax())] for name, found in logits.items()}
