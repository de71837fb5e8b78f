"""Detects and embeds faces for FaceSim-Arc and FaceSim-Cur, and crops the faces that FID compares.

Compared with ConsisID's own evaluation (eval/get_facesim_fid.py in PKU-YuanGroup/ConsisID):

- The same: the largest face of a picture; a second detection with a grey border of a quarter when none is found;
  ArcFace's alignment by five keypoints; cosine similarity to the portrait; faces for FID aligned at 224 × 224.
- A frame without a face counts as similarity 0 here. The original leaves it out of the mean, so a video that shows its
  person once scores as high as one that shows them in every frame. Negative cosines stay negative here; the original
  clamps them to 0, which raises the mean of strangers. `published_similarity` computes the original's mean.
- All frames are read unless a number is given; the original reads 16, spaced as in `sample`.
- Detection at 640 pixels; the original uses 320. For CurricularFace the face is warped to 112 × 112 directly; the
  original warps to 224 and shrinks.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from consisid_runtime.errors import CheckpointInvalid, ConsisIDError, NoFace
from consisid_runtime.mp4 import Frames
from consisid_runtime.stages.face.finder import FaceFinder, Found
from consisid_runtime.stages.face.geometry import arcface_transform, warp
from consisid_runtime.stages.face.image import Pixels

Floats = npt.NDArray[np.float32]

PUBLISHED_FRAMES = 16
_BORDER = 0.25
_GREY = (128, 128, 128)
_ALIGNED = 224
_PROBE_PICTURE: Pixels = np.zeros((112, 112, 3), np.uint8)
_PROBE_KEYPOINTS = np.array([[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]], np.float32)
"""Used to find the width of an embedding, which an ONNX file may leave open."""


@dataclass(frozen=True, slots=True)
class Faces:
    """The largest face of each of F pictures.

    Attributes:
        boxes: float32 [F, 4] (x0, y0, x1, y1), pixels; NaN without a face.
        keypoints: float32 [F, 5, 2], pixels; NaN without a face.
        embeddings: recogniser → float32 [F, D], unit rows, zero without a face. The dot product of a row with a
            portrait's row is their cosine, or 0; the mean of the rows represents the whole video.
    """

    boxes: Floats
    keypoints: Floats
    embeddings: dict[str, Floats]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Whether a face was found in each picture [F]."""
        return np.asarray(np.isfinite(self.boxes[:, 0]), np.bool_)


class FaceJudge:
    """A face detector and recognisers; detection runs once per picture for all recognisers.

    Args:
        detector: SCRFD with keypoints, an ONNX file.
        recognisers: name → ONNX file with ArcFace's input and output; at least one.
        device: one of `engines.DEVICES`.
        threads: CPU threads of each network.

    Raises `CheckpointInvalid` for a file that is not such a network, `MissingExtra` without insightface.
    """

    def __init__(self, detector: Path, recognisers: Mapping[str, Path], device: str, threads: int) -> None:
        if not recognisers:
            raise ValueError("a face judge needs at least one recogniser")
        self._files = recognisers
        try:
            self._finders = {name: FaceFinder(detector, path, device, threads) for name, path in recognisers.items()}
            self._widths = {
                name: len(finder.embed(_PROBE_PICTURE, _PROBE_KEYPOINTS)) for name, finder in self._finders.items()
            }
        except ConsisIDError:
            raise
        except Exception as error:  # insightface and ONNX Runtime raise many types for damaged files
            files = ", ".join(map(str, (detector, *recognisers.values())))
            raise CheckpointInvalid(f"one of {files} is not a face network: {error}") from error

    def read(self, frames: Frames) -> Faces:
        """The largest face of each picture; frames are uint8 [F, H, W, 3] RGB.

        Raises `CheckpointInvalid` when an embedding is not finite.
        """
        boxes, keypoints = (
            np.full((len(frames), 4), np.nan, np.float32),
            np.full((len(frames), 5, 2), np.nan, np.float32),
        )
        rows = {name: np.zeros((len(frames), width), np.float32) for name, width in self._widths.items()}
        for index, rgb in enumerate(frames):
            bgr = np.ascontiguousarray(rgb[..., ::-1])
            face = self._largest(bgr)
            if face is None:
                continue
            boxes[index], keypoints[index] = face.box, face.keypoints
            for name, finder in self._finders.items():
                rows[name][index] = _unit(finder.embed(bgr, face.keypoints))
                if not np.isfinite(rows[name][index]).all():
                    raise CheckpointInvalid(
                        f"{self._files[name]} returns embeddings that are not finite; it is damaged"
                    )
        return Faces(boxes, keypoints, rows)

    def read_portrait(self, picture: Pixels, name: str) -> Faces:
        """The face in one picture, uint8 [H, W, 3] RGB. Raises `NoFace`, naming the picture `name`."""
        faces = self.read(picture[None])
        if not faces.found[0]:
            raise NoFace(f"{name} shows no face that the judge's detector finds; give a portrait with a visible face")
        return faces

    def _largest(self, bgr: Pixels) -> Found | None:
        finder = next(iter(self._finders.values()))
        if found := finder.find(bgr):
            return found[0]
        # The detector misses faces that fill the picture, since it was trained on faces with surroundings.
        down, across = (int(edge * _BORDER) for edge in bgr.shape[:2])
        wide = cv2.copyMakeBorder(bgr, down, down, across, across, cv2.BORDER_CONSTANT, value=_GREY)
        if not (found := finder.find(np.asarray(wide, np.uint8))):
            return None
        shift = np.array((across, down), np.float32)
        return Found(found[0].box - np.tile(shift, 2), found[0].score, found[0].keypoints - shift)


def sample(count: int, wanted: int | None) -> npt.NDArray[np.intp]:
    """Indices of `wanted` of `count` frames, evenly spaced from first to last; all if `wanted` is None or ≥ `count`."""
    if wanted is None or wanted >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, wanted).astype(np.intp)


def similarities(faces: Faces, portrait: Faces, recogniser: str) -> npt.NDArray[np.float64]:
    """Cosine similarity of each frame's face to the portrait's [F]; 0 for a frame without a face."""
    return np.asarray(faces.embeddings[recogniser] @ portrait.embeddings[recogniser][0], np.float64)


def published_similarity(faces: Faces, portrait: Faces, recogniser: str) -> float:
    """Mean similarity as in ConsisID's evaluation: over frames with a face, negative cosines as 0; 0 without faces."""
    cosines = similarities(faces, portrait, recogniser)[faces.found]
    return float(np.maximum(cosines, 0).mean()) if len(cosines) else 0.0


def aligned_faces(frames: Frames, faces: Faces, height: int, width: int) -> Frames:
    """The N faces that were found, uint8 [N, height, width, 3] RGB, aligned by their keypoints."""
    crops = []
    for rgb, keypoints in zip(frames[faces.found], faces.keypoints[faces.found], strict=True):
        crop = warp(np.ascontiguousarray(rgb), arcface_transform(keypoints, _ALIGNED), _ALIGNED, border=(0, 0, 0))
        shrinks = height * width < _ALIGNED**2
        crops.append(cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
    return np.asarray(np.stack(crops), np.uint8) if crops else np.zeros((0, height, width, 3), np.uint8)


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), float(np.finfo(np.float32).tiny)), np.float32)
