"""Detects and recognises faces with SCRFD and ArcFace, through insightface, from local files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from consisid_runtime.engines.onnxruntime import providers, require_provider
from consisid_runtime.errors import BundleCorrupt, MissingExtra
from consisid_runtime.stages.face.geometry import Floats, arcface_transform, warp
from consisid_runtime.stages.face.image import Pixels

DETECTION_SIZE = (640, 640)
MIN_SCORE = 0.5
THREADS = 4
"""Fixed, not the machine's count, so that the same image gives the same bits on every host."""


class Found(NamedTuple):
    """One face: box [4], score, keypoints [5, 2] (eyes, nose, mouth corners), in pixels."""

    box: Floats
    score: float
    keypoints: Floats


class FaceFinder:
    """Loaded detector and recogniser.

    Args:
        detector, recogniser: ONNX files, SCRFD with keypoints and ArcFace.
        device: one of `engines.DEVICES`.
        threads: CPU threads of each.

    Raises `MissingExtra` without insightface or, where CUDA is named, without ONNX Runtime's provider for it,
    `InvalidOption` for an unknown device, `BundleCorrupt` when a file holds another kind of network.
    """

    def __init__(self, detector: Path, recogniser: Path, device: str = "auto", threads: int = THREADS) -> None:
        try:
            import onnxruntime
            from insightface.model_zoo import get_model
        except ImportError as missing:
            raise MissingExtra(
                f"reading faces needs insightface ({missing}): pip install 'consisid-runtime[cpu]' (or [gpu])"
            ) from missing
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.use_deterministic_compute = True
        options.log_severity_level = 3
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")

        def load(path: Path, kind: str) -> Any:
            model = get_model(str(path), providers=providers(device), sess_options=options)
            if model is None or model.taskname != kind:
                raise BundleCorrupt(f"{path} holds no face {kind} network; export the checkpoint again")
            require_provider(device, model.session.get_providers())
            return model

        self._detector = load(detector, "detection")
        self._recogniser = load(recogniser, "recognition")
        if not self._detector.use_kps:
            raise BundleCorrupt(f"{detector} finds faces without keypoints; ConsisID needs SCRFD's `bnkps` variant")
        self._detector.prepare(0, input_size=DETECTION_SIZE, det_thresh=MIN_SCORE)

    def find(self, image: Pixels) -> list[Found]:
        """Every face in a BGR image [H, W, 3], largest first."""
        boxes, keypoints = self._detector.detect(image)
        area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
        largest: Sequence[int] = np.argsort(area, kind="stable")[::-1].tolist()
        return [Found(boxes[i, :4], float(boxes[i, 4]), keypoints[i].astype(np.float32)) for i in largest]

    def embed(self, image: Pixels, keypoints: Floats) -> Floats:
        """ArcFace's embedding, not normalised, of the face with these keypoints in a BGR image."""
        edge = self._recogniser.input_size[0]
        return self.embed_crop(warp(image, arcface_transform(keypoints, edge), edge, border=(0, 0, 0)))

    def embed_crop(self, crop: Pixels) -> Floats:
        """ArcFace's embedding, not normalised, of a square BGR crop of any size, scaled to the network's."""
        return np.asarray(self._recogniser.get_feat(crop), np.float32).reshape(-1)
