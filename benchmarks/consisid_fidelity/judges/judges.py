"""Opens a judge folder: finds which judges it holds and loads each on first use."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from consisid_runtime.engines import check_device
from consisid_runtime.errors import CheckpointInvalid, InvalidOption
from consisid_runtime.files.ownership import sha256
from consisid_runtime.mp4 import Frames
from consisid_runtime.stages.face.finder import THREADS

if TYPE_CHECKING:
    from consisid_fidelity.judges.clip_score import ClipJudge
    from consisid_fidelity.judges.faces import FaceJudge, Faces
    from consisid_fidelity.judges.prompt_accuracy import AttributeJudge

DETECTOR, INCEPTION, CLIP = "detector.onnx", "inception.onnx", "clip"
ATTRIBUTES, CLASSES = "attributes.onnx", "attributes.json"
RECOGNISERS = {"arc": "arcface.onnx", "cur": "curricular.onnx"}
"""Name in the metrics → file."""
ANY_RECOGNISER = " or ".join(RECOGNISERS.values())

_FACE = (DETECTOR, ANY_RECOGNISER)
REQUIRED_FILES: dict[str, tuple[str, ...]] = {
    **{f"facesim_{name}": (DETECTOR, file) for name, file in RECOGNISERS.items()},
    **{f"facesim_{name}_published": (DETECTOR, file) for name, file in RECOGNISERS.items()},
    "faces_found": _FACE,
    "identity_stability": _FACE,
    "face_distance": (*_FACE, INCEPTION),
    "fid": (*_FACE, INCEPTION),
    "clip_score": (CLIP,),
    "clip_distance": (CLIP,),
    "prompt_accuracy": (ATTRIBUTES, CLASSES),
}
"""Metric → the files in the judge folder that it needs."""

SHARES = ("prompt_accuracy", "faces_found")
"""Metrics that are shares, from 0 to 1."""


class Judges:
    """The networks in a judge folder.

    Attributes:
        folder: that holds them.
        missing: metric → missing files that it needs; such a metric is not computed.
    """

    def __init__(self, folder: Path, device: str, threads: int) -> None:
        self.folder, self._device, self._threads = folder, device, threads
        self.missing = {
            metric: absent
            for metric, files in REQUIRED_FILES.items()
            if (absent := [f for f in files if not self._has(f)])
        }

    @classmethod
    def open(cls, folder: Path, device: str = "auto", threads: int = THREADS) -> Judges:
        """Find the judges in `folder`, without loading them.

        Args:
            folder: holds any of detector.onnx, arcface.onnx, curricular.onnx, clip/, inception.onnx and
                attributes.onnx with attributes.json.
            device: one of `engines.DEVICES`.
            threads: CPU threads of each ONNX network; fixed, so that figures do not depend on the number of cores.

        Raises `CheckpointInvalid` for a missing folder or one without any judge, `InvalidOption` for an unknown device.
        """
        check_device(device)
        files = list(
            dict.fromkeys(file for wanted in REQUIRED_FILES.values() for file in wanted if file != ANY_RECOGNISER)
        )
        try:
            found = any((folder / file).exists() for file in files)
        except OSError as error:
            raise CheckpointInvalid(f"{folder} cannot be read: {error.strerror}") from error
        if not found:
            state = "holds none of the judges' files" if folder.is_dir() else "is not a folder"
            raise CheckpointInvalid(f"{folder} {state}; a judge folder holds some of {', '.join(files)}")
        return cls(folder, device, threads)

    @cached_property
    def faces(self) -> FaceJudge:
        """The face judge. This and the other judges raise `CheckpointInvalid` for missing or damaged files,
        `MissingExtra` for a missing package or CUDA."""
        from consisid_fidelity.judges.faces import FaceJudge

        self._require("faces_found")
        files = {name: self.folder / file for name, file in RECOGNISERS.items() if self._has(file)}
        return FaceJudge(self.folder / DETECTOR, files, self._device, self._threads)

    @cached_property
    def clip(self) -> ClipJudge:
        from consisid_fidelity.judges.clip_score import ClipJudge

        self._require("clip_score")
        return ClipJudge(self.folder / CLIP, self._device)

    @cached_property
    def inception(self) -> FeatureJudge:
        self._require("fid")
        return FeatureJudge(self.folder / INCEPTION, self._device, self._threads)

    @cached_property
    def attributes(self) -> AttributeJudge:
        from consisid_fidelity.judges.prompt_accuracy import AttributeJudge

        self._require("prompt_accuracy")
        return AttributeJudge(self.folder / ATTRIBUTES, self.folder / CLASSES, self._device, self._threads)

    def digests(self) -> dict[str, str]:
        """File → SHA-256, of every judge's file: figures are comparable only between equal judges."""
        top = [DETECTOR, *RECOGNISERS.values(), INCEPTION, ATTRIBUTES, CLASSES]
        files = [self.folder / name for name in top if self._has(name)]
        files += sorted(path for path in (self.folder / CLIP).rglob("*") if path.is_file())
        digests = {}
        for path in files:
            try:
                digests[path.relative_to(self.folder).as_posix()] = sha256(path)
            except OSError as error:
                raise CheckpointInvalid(f"{path} cannot be read: {error.strerror}") from error
        return digests

    def _has(self, file: str) -> bool:
        if file == ANY_RECOGNISER:
            return any(self._has(recogniser) for recogniser in RECOGNISERS.values())
        path = self.folder / file
        return path.is_dir() if file == CLIP else path.is_file()

    def _require(self, metric: str) -> None:
        if metric in self.missing:
            raise CheckpointInvalid(f"{self.folder} lacks {', '.join(self.missing[metric])}, which {metric} needs")


class FeatureJudge:
    """inception.onnx: images [N, 3, H, W] RGB 0..1 → features [N, D].

    Attributes:
        height, width: of the images, pixels.

    Raises `CheckpointInvalid` for a file that is not such a network.
    """

    def __init__(self, path: Path, device: str, threads: int) -> None:
        from consisid_fidelity.judges.networks import OnnxNetwork

        self._network = OnnxNetwork(path, device, threads)
        shape = self._network.shape
        height, width = (shape[2], shape[3]) if len(shape) == 4 else (None, None)
        if height is None or width is None or len(self._network.outputs) != 1:
            raise CheckpointInvalid(f"{path} takes {list(shape)}; images [N, 3, H, W] with fixed H and W are needed")
        self.height, self.width = height, width

    def features(self, images: Frames) -> npt.NDArray[np.float32]:
        """Features [N, D] of N ≥ 1 images, uint8 [N, height, width, 3] RGB. Raises `InvalidOption` for another size."""
        if images.shape[1:] != (self.height, self.width, 3):
            raise InvalidOption(f"images must be {self.width}×{self.height}, got {list(images.shape)}")
        (features,) = self._network(images.transpose(0, 3, 1, 2).astype(np.float32) / 255).values()
        return features

    def of_faces(self, frames: Frames, faces: Faces) -> npt.NDArray[np.float32]:
        """Features [N, D], for FID, of the N ≥ 1 faces that were found in frames, uint8 [F, H, W, 3] RGB."""
        from consisid_fidelity.judges.faces import aligned_faces

        return self.features(aligned_faces(frames, faces, self.height, self.width))
