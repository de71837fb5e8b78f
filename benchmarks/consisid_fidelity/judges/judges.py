"""A judge folder: the networks that videos are scored with, those that are there, each loaded when first asked for."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from consisid_runtime.engines import check_device
from consisid_runtime.errors import CheckpointInvalid, InvalidOption
from consisid_runtime.stages.face.finder import THREADS
from consisid_runtime.video import Frames

if TYPE_CHECKING:
    from consisid_fidelity.judges.clip_score import ClipJudge
    from consisid_fidelity.judges.faces import FaceJudge, Faces
    from consisid_fidelity.judges.prompt_accuracy import AttributeJudge

DETECTOR, INCEPTION, CLIP = "detector.onnx", "inception.onnx", "clip"
ATTRIBUTES, CLASSES = "attributes.onnx", "attributes.json"
RECOGNISERS = {"arc": "arcface.onnx", "cur": "curricular.onnx"}
"""Name in metrics → file."""
ANY_RECOGNISER = " or ".join(RECOGNISERS.values())

_FACE = (DETECTOR, ANY_RECOGNISER)
WANTED: dict[str, tuple[str, ...]] = {
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
"""Metrics from 0 to 1."""


class Judges:
    """The networks in a judge folder.

    Attributes:
        folder: where they are.
        missing: metric → the files that are not there and without which it is not computed.
    """

    def __init__(self, folder: Path, device: str, threads: int) -> None:
        self.folder, self._device, self._threads = folder, device, threads
        self.missing = {
            metric: absent for metric, files in WANTED.items() if (absent := [f for f in files if not self._has(f)])
        }

    @classmethod
    def open(cls, folder: Path, device: str = "auto", threads: int = THREADS) -> Judges:
        """See what is in `folder`; networks load later.

        Args:
            folder: holds detector.onnx, arcface.onnx, curricular.onnx, clip/, inception.onnx, attributes.onnx with
                attributes.json, or some of them.
            device: "cpu", "cuda" or "auto".
            threads: CPU threads of each ONNX network; fixed, so that figures do not depend on the machine's count.

        Raises `CheckpointInvalid` for a folder that is none or holds no judge, `InvalidOption` for an unknown device.
        """
        check_device(device)
        files = list(dict.fromkeys(file for wanted in WANTED.values() for file in wanted if file != ANY_RECOGNISER))
        if not any((folder / file).exists() for file in files):
            state = "holds none of a judge's files" if folder.is_dir() else "is no folder"
            raise CheckpointInvalid(f"{folder} {state}; a judge folder holds some of {', '.join(files)}")
        return cls(folder, device, threads)

    @cached_property
    def faces(self) -> FaceJudge:
        """Raises `CheckpointInvalid` where files are missing or damaged, `MissingExtra` where a package or CUDA is
        missing; so do the other judges."""
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
        """File → SHA-256, of every judge's file: figures mean nothing without the judge they came from."""
        top = [DETECTOR, *RECOGNISERS.values(), INCEPTION, ATTRIBUTES, CLASSES]
        files = [self.folder / name for name in top if self._has(name)]
        files += sorted(path for path in (self.folder / CLIP).rglob("*") if path.is_file())
        digests = {}
        for path in files:
            with path.open("rb") as file:
                digests[path.relative_to(self.folder).as_posix()] = hashlib.file_digest(file, "sha256").hexdigest()
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
        height, width: of its pictures.

    Raises `CheckpointInvalid` where the file is no such network.
    """

    def __init__(self, path: Path, device: str, threads: int) -> None:
        from consisid_fidelity.judges.networks import OnnxNetwork

        self._network = OnnxNetwork(path, device, threads)
        shape = self._network.shape
        height, width = (shape[2], shape[3]) if len(shape) == 4 else (None, None)
        if height is None or width is None or len(self._network.outputs) != 1:
            raise CheckpointInvalid(f"{path} takes {list(shape)}; images [N, 3, H, W] of a fixed size are needed")
        self.height, self.width = height, width

    def features(self, images: Frames) -> npt.NDArray[np.float32]:
        """Features [N, D] of N ≥ 1 images, uint8 [N, height, width, 3] RGB. Raises `InvalidOption` for another size."""
        if images.shape[1:] != (self.height, self.width, 3):
            raise InvalidOption(f"images must be {self.width}×{self.height}, got {list(images.shape)}")
        (features,) = self._network(images.transpose(0, 3, 1, 2).astype(np.float32) / 255).values()
        return features

    def of_faces(self, frames: Frames, faces: Faces) -> npt.NDArray[np.float32]:
        """Features [N, D] of the N ≥ 1 faces that were found in frames, uint8 [F, H, W, 3] RGB: what FID compares."""
        from consisid_fidelity.judges.faces import aligned_faces

        return self.features(aligned_faces(frames, faces, self.height, self.width))
