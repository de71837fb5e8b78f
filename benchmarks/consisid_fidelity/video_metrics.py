"""Metrics of one video that several commands need: its faces against a portrait, its frames against a reference."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import numpy as np
import numpy.typing as npt

from consisid_fidelity.judges.faces import Faces, similarities
from consisid_fidelity.judges.judges import RECOGNISERS, Judges
from consisid_fidelity.metrics import distance, stability
from consisid_runtime.mp4 import Frames
from consisid_runtime.stages.face.image import Pixels

Values = dict[str, float | None]
"""Metric → value; None for a video without one."""


class Portraits:
    """The faces in portraits and their inception features, computed once per portrait and kept.

    Args:
        judges: with a detector and a recogniser.
    """

    def __init__(self, judges: Judges) -> None:
        self._judges = judges
        self._faces: dict[Hashable, Faces] = {}
        self._features: dict[Hashable, npt.NDArray[np.float32]] = {}

    def face(self, key: Hashable, read: Callable[[], Pixels], name: str) -> Faces:
        """The face of one portrait.

        Args:
            key: identifies the portrait.
            read: returns the portrait, uint8 [H, W, 3] RGB.
            name: of the portrait, for messages.

        Raises `NoFace` and what `read` raises.
        """
        if key not in self._faces:
            picture = read()
            face = self._judges.faces.read_portrait(picture, name)
            if "fid" not in self._judges.missing:
                self._features[key] = self._judges.inception.of_faces(picture[None], face)[0]
            self._faces[key] = face
        return self._faces[key]

    def features(self, key: Hashable) -> npt.NDArray[np.float32]:
        """Features [D] of a portrait that `face` has read. Raises `KeyError` without inception.onnx."""
        return self._features[key]

    def all_features(self) -> list[npt.NDArray[np.float32]]:
        """Features [D] of every portrait, each counted once; empty without inception.onnx."""
        return list(self._features.values())


def face_metrics(faces: Faces, portrait: Faces) -> Values:
    """Share of frames with a face, mean similarity to the portrait by each recogniser, and identity stability."""
    values: Values = {"faces_found": float(faces.found.mean())}
    for name in faces.embeddings:
        values[f"facesim_{name}"] = float(similarities(faces, portrait, name).mean())
    first = next(name for name in RECOGNISERS if name in faces.embeddings)
    values["identity_stability"] = stability.identity_stability(faces.embeddings[first])
    return values


def reference_metrics(frames: Frames, reference: Frames, judges: Judges) -> Values:
    """Distances to a reference video, both uint8 [F, H, W, 3]; "clip_distance" only with a CLIP judge.

    Raises `ValueError` for unequal shapes.
    """
    values: Values = {"psnr": distance.psnr(frames, reference), "ssim": distance.ssim(frames, reference)}
    if "clip_distance" not in judges.missing:
        values["clip_distance"] = judges.clip.feature_distance(frames, reference)
    return values
