"""What the judges see in one video of the nano world, as plain numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from consisid_fidelity.judges import prompt_accuracy
from consisid_fidelity.judges.faces import Faces, sample, similarities
from consisid_fidelity.judges.judges import RECOGNISERS, Judges
from consisid_fidelity.metrics import distance, stability
from consisid_fidelity.metrics.frechet import squared_distance
from consisid_fidelity.metrics.spectrum import relative_log_amplitude
from consisid_fidelity.metrics.statistics import rank1
from consisid_fidelity.nano.person_judge import PersonJudge
from consisid_fidelity.nano.set import Case
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.stages.face.finder import THREADS
from consisid_runtime.video import Frames

Values = dict[str, Any]
Gallery = npt.NDArray[np.float32]
NEEDED = ("facesim_arc", "clip_score", "prompt_accuracy")
_DIGITS = 4  # of spectra and features


@dataclass(frozen=True, slots=True)
class Reference:
    """A video to compare with: final latents float32 [1, F, C, h, w] and frames uint8 [F, H, W, 3]."""

    latents: npt.NDArray[np.float32]
    frames: Frames


class Observer:
    """The judges of a folder, put to the question.

    Args:
        folder: of judges, person.onnx among them.
        frames: of each video that faces are looked for in, evenly spaced; None for all.

    Raises `CheckpointInvalid` where a judge that every experiment needs is missing.
    """

    def __init__(self, folder: Path, frames: int | None) -> None:
        self.judges = Judges.open(folder, "cpu")
        if absent := sorted({file for metric in NEEDED for file in self.judges.missing.get(metric, [])}):
            raise CheckpointInvalid(f"{folder} lacks {', '.join(absent)}, which the nano experiments need")
        self._person = PersonJudge(folder, "cpu", THREADS)
        self._frames = frames
        self._portraits: dict[str, Faces] = {}
        self._portrait_features: dict[str, npt.NDArray[np.float32]] = {}

    def gallery(self, cases: Sequence[Case]) -> Gallery:
        """ArcFace embeddings [N, D] of another portrait of each case's person. Raises `NoFace` naming the case."""
        found = [self.judges.faces.read_portrait(one.other_portrait(), f"{one.name}, gallery") for one in cases]
        return np.concatenate([faces.embeddings["arc"] for faces in found])

    def __call__(
        self,
        case: Case,
        frames: Frames,
        gallery: Gallery,
        latents: npt.NDArray[np.float32] | None = None,
        reference: Reference | None = None,
    ) -> Values:
        """Every measurement of one video. Numbers, and for single outcomes booleans.

        Args:
            frames: uint8 [F, H, W, 3] RGB.
            gallery: as `gallery` gives it; the case's person is column `case.number`.
            latents, reference: of the video, and what to compare it with.
        """
        chosen = frames[sample(len(frames), self._frames)]
        faces = self.judges.faces.read(chosen)
        values: Values = {"flicker": stability.flicker(frames), **self._identity(case, faces, gallery)}
        values["clip_score"] = self.judges.clip.score(chosen, case.prompt)
        shown = prompt_accuracy.hits(self.judges.attributes.predict(frames), case.scene.labels())
        values["prompt_accuracy"] = float(np.mean(list(shown.values())))
        values |= {f"prompt.{name}": hit for name, hit in shown.items()}
        seen = self._person.predict(chosen, faces)
        others = case.donor().person.attributes()
        for name, label in case.person.attributes().items():
            # A video without a face shows no attribute of anybody.
            values[f"person.{name}"] = seen.get(name) == label
            if others[name] != label:
                values |= {f"own.{name}": seen.get(name) == label, f"other.{name}": seen.get(name) == others[name]}
        spectrum = relative_log_amplitude(frames)
        values["spectrum"] = [round(float(level), _DIGITS) for level in spectrum.amplitude]
        if "fid" not in self.judges.missing:
            values |= self._features(case, chosen, faces)
        if latents is not None and reference is not None:
            values |= self._distances(frames, latents, reference)
        return values

    def _identity(self, case: Case, faces: Faces, gallery: Gallery) -> Values:
        own, other = self._portrait(case), self._portrait(case.donor())
        values: Values = {"faces_found": float(faces.found.mean())}
        for name in (name for name in RECOGNISERS if name in faces.embeddings):
            values[f"facesim_{name}"] = float(similarities(faces, own, name).mean())
        values["facesim_other"] = float(similarities(faces, other, "arc").mean())
        similarity = gallery @ faces.embeddings["arc"].mean(axis=0)
        values["strangers"] = float(np.delete(similarity, case.number).mean())
        values["rank1"] = bool(rank1(similarity[None], np.array([case.number]))[0])
        values["identity_stability"] = stability.identity_stability(faces.embeddings["arc"])
        return values

    def _features(self, case: Case, frames: Frames, faces: Faces) -> Values:
        """What FID compares: features [D] of the portrait's face, and of each face in the frames."""
        read = self.judges.inception.of_faces
        if case.name not in self._portrait_features:
            self._portrait_features[case.name] = read(case.portrait()[None], self._portrait(case))[0]
        portrait = self._portrait_features[case.name]
        values: Values = {"portrait_features": [round(float(level), _DIGITS) for level in portrait]}
        if faces.found.any():
            features = read(frames, faces)
            values["face_distance"] = squared_distance(features, portrait)
            values["face_features"] = [[round(float(level), _DIGITS) for level in row] for row in features]
        return values

    def _portrait(self, case: Case) -> Faces:
        if case.name not in self._portraits:
            self._portraits[case.name] = self.judges.faces.read_portrait(case.portrait(), f"{case.name}, portrait")
        return self._portraits[case.name]

    def _distances(self, frames: Frames, latents: npt.NDArray[np.float32], reference: Reference) -> Mapping[str, float]:
        return {
            "latents": distance.relative_distance(latents, reference.latents),
            "psnr": distance.psnr(frames, reference.frames),
            "ssim": distance.ssim(frames, reference.frames),
            "clip_distance": self.judges.clip.feature_distance(frames, reference.frames),
        }
