"""Measures one video of an evaluation case with the judges; values that JSON can store."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from consisid_fidelity.judges import prompt_accuracy
from consisid_fidelity.judges.faces import Faces, sample, similarities
from consisid_fidelity.judges.judges import Judges
from consisid_fidelity.judges.person_attributes import PersonAttributeJudge
from consisid_fidelity.metrics import distance, stability
from consisid_fidelity.metrics.frechet import squared_distance
from consisid_fidelity.metrics.spectrum import relative_log_amplitude
from consisid_fidelity.metrics.statistics import rank1
from consisid_fidelity.nano.evaluation_set import Case
from consisid_fidelity.video_metrics import Portraits, face_metrics, reference_metrics
from consisid_runtime.errors import CheckpointInvalid
from consisid_runtime.mp4 import Frames
from consisid_runtime.stages.face.finder import THREADS

Measurements = dict[str, Any]
"""Metric → number, boolean for a single outcome, or nested lists of numbers."""
Gallery = npt.NDArray[np.float32]
REQUIRED_METRICS = ("facesim_arc", "clip_score", "prompt_accuracy")
_DIGITS = 4  # of spectra and features


@dataclass(frozen=True, slots=True)
class ReferenceVideo:
    """A video to compare with: final latents float32 [1, F, C, h, w] and frames uint8 [F, H, W, 3]."""

    latents: npt.NDArray[np.float32]
    frames: Frames


class Measurer:
    """Measures videos with the judges of a folder, on the CPU.

    Args:
        folder: of judges, including person.onnx.
        frames: of each video in which faces are searched, evenly spaced; None for all.

    Raises `CheckpointInvalid` when a judge that every experiment needs is missing.
    """

    def __init__(self, folder: Path, frames: int | None) -> None:
        self.judges = Judges.open(folder, "cpu")
        if absent := sorted({file for metric in REQUIRED_METRICS for file in self.judges.missing.get(metric, [])}):
            raise CheckpointInvalid(f"{folder} lacks {', '.join(absent)}, which the nano experiments need")
        self._person = PersonAttributeJudge(folder, "cpu", THREADS)
        self._frames = frames
        self._portraits = Portraits(self.judges)

    def gallery(self, cases: Sequence[Case]) -> Gallery:
        """ArcFace embeddings [N, D] of another portrait of each case's person. Raises `NoFace`, naming the case."""
        found = [self.judges.faces.read_portrait(one.other_portrait(), f"{one.name}, gallery") for one in cases]
        return np.concatenate([faces.embeddings["arc"] for faces in found])

    def __call__(
        self,
        case: Case,
        frames: Frames,
        gallery: Gallery,
        latents: npt.NDArray[np.float32] | None = None,
        reference: ReferenceVideo | None = None,
    ) -> Measurements:
        """Every measurement of one video.

        Args:
            case: what the video was asked to show.
            frames: uint8 [F, H, W, 3] RGB.
            gallery: from `gallery`; row `case.number` is the case's person.
            latents: the video's final latents, float32 [1, F, C, h, w].
            reference: the video to compare with; distances are measured only with both latents and reference.
        """
        chosen = frames[sample(len(frames), self._frames)]
        faces = self.judges.faces.read(chosen)
        values: Measurements = {"flicker": stability.flicker(frames), **self._identity(case, faces, gallery)}
        values["clip_score"] = self.judges.clip.score(chosen, case.prompt)
        shown = prompt_accuracy.hits(self.judges.attributes.predict(frames), case.scene.labels())
        values["prompt_accuracy"] = float(np.mean(list(shown.values())))
        values |= {f"prompt.{name}": hit for name, hit in shown.items()}
        seen = self._person.predict(chosen, faces)
        others = case.donor().person.attributes()
        for name, label in case.person.attributes().items():
            # Without a face, `seen` is empty and every attribute counts as missed.
            values[f"person.{name}"] = seen.get(name) == label
            if others[name] != label:
                values |= {f"own.{name}": seen.get(name) == label, f"other.{name}": seen.get(name) == others[name]}
        values["spectrum"] = _rounded(relative_log_amplitude(frames).amplitude)
        if "fid" not in self.judges.missing:
            values |= self._features(case, chosen, faces)
        if latents is not None and reference is not None:
            values["latents"] = distance.relative_distance(latents, reference.latents)
            values |= reference_metrics(frames, reference.frames, self.judges)
        return values

    def _identity(self, case: Case, faces: Faces, gallery: Gallery) -> Measurements:
        values: Measurements = {**face_metrics(faces, self._portrait(case))}
        values["facesim_other"] = float(similarities(faces, self._portrait(case.donor()), "arc").mean())
        similarity = gallery @ faces.embeddings["arc"].mean(axis=0)
        values["strangers"] = float(np.delete(similarity, case.number).mean())
        values["rank1"] = bool(rank1(similarity[None], np.array([case.number]))[0])
        return values

    def _features(self, case: Case, frames: Frames, faces: Faces) -> Measurements:
        """The features that FID compares: [D] of the portrait's face, and of each face in the frames."""
        portrait = self._portraits.features(case.name)
        values: Measurements = {"portrait_features": _rounded(portrait)}
        if faces.found.any():
            features = self.judges.inception.of_faces(frames, faces)
            values["face_distance"] = squared_distance(features, portrait)
            values["face_features"] = [_rounded(row) for row in features]
        return values

    def _portrait(self, case: Case) -> Faces:
        return self._portraits.face(case.name, case.portrait, f"{case.name}, portrait")


def _rounded(levels: npt.NDArray[np.floating[Any]]) -> list[float]:
    return [round(float(level), _DIGITS) for level in levels]
