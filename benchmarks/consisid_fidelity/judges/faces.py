"""Whose face is in a portrait, and in each frame of a video: FaceSim-Arc, FaceSim-Cur and the faces that FID compares.

Beside ConsisID's own evaluation (eval/get_facesim_fid.py in PKU-YuanGroup/ConsisID):

- The same: the largest face of a picture; where none is found, another look with a grey border of a quarter; ArcFace's
  alignment by five keypoints; cosine similarity to the portrait; faces for FID aligned at 224 × 224.
- A frame without a face counts as similarity 0 here. There it is left out of the mean, so that a video showing its
  person once scores as well as one that shows them always. Negative cosines stay negative here and are cut at 0 there,
  which lifts the mean of strangers. `published_similarity` is the mean as it is taken there.
- All frames are read unless a number is given; there 16, evenly spaced, as `sample` spaces them.
- Detection at 640 pixels, there at 320. CurricularFace sees the face warped to 112 × 112 at once, there warped to 224
  and shrunk.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from consisid_runtime.errors import CheckpointInvalid, ConsisIDError, NoFace
from consisid_runtime.stages.face.finder import FaceFinder, Found
from consisid_runtime.stages.face.geometry import arcface_transform, warp
from consisid_runtime.stages.face.image import Pixels
from consisid_runtime.video import Frames

Floats = npt.NDArray[np.float32]

PUBLISHED_FRAMES = 16
_BORDER = 0.25
_GREY = (128, 128, 128)
_ALIGNED = 224
_BLANK: Pixels = np.zeros((112, 112, 3), np.uint8)
_ANYWHERE = np.array([[38, 52], [74, 52], [56, 72], [42, 92], [71, 92]], np.float32)
"""Keypoints in it. The file does not always say how wide an embedding is; trying it does."""


@dataclass(frozen=True, slots=True)
class Faces:
    """The largest face of each of F pictures.

    Attributes:
        boxes: float32 [F, 4] (x0, y0, x1, y1), pixels; NaN where there is no face.
        keypoints: float32 [F, 5, 2]; NaN where there is no face.
        embeddings: recogniser → float32 [F, D], rows of length one, zero where there is no face. So the product of a
            row with a portrait's is their cosine, or 0, and the mean of the rows stands for the whole video.
    """

    boxes: Floats
    keypoints: Floats
    embeddings: dict[str, Floats]

    @property
    def found(self) -> npt.NDArray[np.bool_]:
        """Which pictures show a face [F]."""
        return np.asarray(np.isfinite(self.boxes[:, 0]), np.bool_)


class FaceJudge:
    """A detector and the recognisers that look at what it finds; a picture is searched once for all of them.

    Args:
        detector: SCRFD with keypoints, an ONNX file.
        recognisers: name → ONNX file of ArcFace's contract; at least one.
        device: "cpu", "cuda" or "auto".
        threads: CPU threads of each network.

    Raises `CheckpointInvalid` where a file is no such network, `MissingExtra` without insightface.
    """

    def __init__(self, detector: Path, recognisers: Mapping[str, Path], device: str, threads: int) -> None:
        if not recognisers:
            raise ValueError("a face judge needs at least one recogniser")
        self._files = recognisers
        try:
            self._finders = {name: FaceFinder(detector, path, device, threads) for name, path in recognisers.items()}
            self._widths = {name: len(finder.embed(_BLANK, _ANYWHERE)) for name, finder in self._finders.items()}
        except ConsisIDError:
            raise
        except Exception as error:  # insightface and ONNX Runtime raise many kinds for damaged files
            files = ", ".join(map(str, (detector, *recognisers.values())))
            raise CheckpointInvalid(f"one of {files} is no face network: {error}") from error

    def read(self, frames: Frames) -> Faces:
        """The largest face of each picture; frames are uint8 [F, H, W, 3] RGB.

        Raises `CheckpointInvalid` where an embedding is not finite.
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
                    raise CheckpointInvalid(f"{self._files[name]} gives an embedding that is not finite; it is damaged")
        return Faces(boxes, keypoints, rows)

    def read_portrait(self, picture: Pixels, name: str) -> Faces:
        """The face of one picture [H, W, 3] RGB. Raises `NoFace`, calling the picture `name`."""
        faces = self.read(picture[None])
        if not faces.found[0]:
            raise NoFace(f"{name} shows no face that the judge's detector finds; nothing can be compared with it")
        return faces

    def _largest(self, bgr: Pixels) -> Found | None:
        finder = next(iter(self._finders.values()))
        if found := finder.find(bgr):
            return found[0]
        # A face that fills the picture is smaller than anything the detector was shown without its surroundings.
        down, across = (int(edge * _BORDER) for edge in bgr.shape[:2])
        wide = cv2.copyMakeBorder(bgr, down, down, across, across, cv2.BORDER_CONSTANT, value=_GREY)
        if not (found := finder.find(np.asarray(wide, np.uint8))):
            return None
        shift = np.array((across, down), np.float32)
        return Found(found[0].box - np.tile(shift, 2), found[0].score, found[0].keypoints - shift)


def sample(count: int, wanted: int | None) -> npt.NDArray[np.intp]:
    """Indices of `wanted` of `count` frames, evenly spaced from the first to the last; of all where None or fewer."""
    if wanted is None or wanted >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, wanted).astype(np.intp)


def similarities(faces: Faces, portrait: Faces, recogniser: str) -> npt.NDArray[np.float64]:
    """Cosine of each frame's face to the portrait's [F]; 0 where the frame has none."""
    return np.asarray(faces.embeddings[recogniser] @ portrait.embeddings[recogniser][0], np.float64)


def published_similarity(faces: Faces, portrait: Faces, recogniser: str) -> float:
    """The mean as ConsisID's evaluation has it: over frames with a face, negative cosines as 0; 0 without any face."""
    cosines = similarities(faces, portrait, recogniser)[faces.found]
    return float(np.maximum(cosines, 0).mean()) if len(cosines) else 0.0


def aligned_faces(frames: Frames, faces: Faces, height: int, width: int) -> Frames:
    """The faces of those frames that show one, uint8 [N, height, width, 3] RGB, aligned by their keypoints."""
    crops = []
    for rgb, keypoints in zip(frames[faces.found], faces.keypoints[faces.found], strict=True):
        crop = warp(np.ascontiguousarray(rgb), arcface_transform(keypoints, _ALIGNED), _ALIGNED, border=(0, 0, 0))
        shrinks = height * width < _ALIGNED**2
        crops.append(cv2.resize(crop, (width, height), interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR))
    return np.asarray(np.stack(crops), np.uint8) if crops else np.zeros((0, height, width, 3), np.uint8)


def _unit(vector: Floats) -> Floats:
    return np.asarray(vector / max(float(np.linalg.norm(vector)), float(np.finfo(np.float32).tiny)), np.float32)
