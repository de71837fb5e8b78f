"""Scores a folder of videos with the judges that are there: values a video, means with intervals, what is missing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from consisid_fidelity.collection import Item
from consisid_fidelity.errors import CollectionInvalid
from consisid_fidelity.judges import prompt_accuracy
from consisid_fidelity.judges.faces import Faces, published_similarity, sample, similarities
from consisid_fidelity.judges.judges import RECOGNISERS, SHARES, Judges
from consisid_fidelity.metrics import distance, stability
from consisid_fidelity.metrics.frechet import TooFewSamples, frechet_distance, squared_distance
from consisid_fidelity.metrics.statistics import Estimate, estimate, proportion
from consisid_runtime.events import Progress
from consisid_runtime.video import Frames

Values = dict[str, float | None]

PAIRED = ("psnr", "ssim", "clip_distance")
UNITS = {"psnr": "dB", "flicker": "levels"}


@dataclass(frozen=True, slots=True)
class Scores:
    """What was measured.

    Attributes:
        videos: name and values of each video; None where a video does not have that one.
        summary: metric → mean over videos, or the figure that all faces together give (fid).
        accuracy: attribute → share of videos that show what was asked for.
        not_computed: metric → why it is not there.
        judges: judge's file → SHA-256.
    """

    videos: list[tuple[str, Values]]
    summary: dict[str, Estimate]
    accuracy: dict[str, Estimate]
    not_computed: dict[str, str]
    judges: dict[str, str]

    def to_json(self) -> dict[str, Any]:
        return {
            "videos": [{"video": name} | values for name, values in self.videos],
            "summary": {name: figure.to_json() for name, figure in self.summary.items()},
            "accuracy": {name: figure.to_json() for name, figure in self.accuracy.items()},
            "not_computed": self.not_computed,
            "judges": self.judges,
        }


@dataclass(slots=True)
class _Portraits:
    """Portraits' faces and features, each read once."""

    faces: dict[Path, Faces] = field(default_factory=dict)
    features: dict[Path, npt.NDArray[np.float32]] = field(default_factory=dict)


def score(items: Sequence[Item], judges: Judges, frames: int | None = None, progress: Progress | None = None) -> Scores:
    """Score every video; one is held in memory at a time.

    Args:
        items: as `read_collection` gives them.
        judges: what is missing there is not computed, and said so.
        frames: of each video that faces and CLIPScore are judged on, evenly spaced; None for all. ConsisID's evaluation
            takes 16. Distances, flicker and attributes always see all.
        progress: called with what is being done, videos done, videos in all.

    Raises `NoFace` for a portrait without a face, `ImageUnreadable` and `VideoUnreadable` for files that cannot be
    read, `CollectionInvalid` for a reference of another shape or a label that its judge does not know; each names the
    row.
    """
    portraits, videos, pooled, outcomes = _Portraits(), [], [], []
    for done, item in enumerate(items):
        if progress:
            progress(item.name, done, len(items))
        video = item.frames()
        chosen = video[sample(len(video), frames)]
        values: Values = {"flicker": stability.flicker(video)}
        values |= _paired(item, video, judges)
        if "faces_found" not in judges.missing:
            identity, features = _identity(item, chosen, judges, portraits)
            values |= identity
            pooled.append(features)
        if "clip_score" not in judges.missing:
            values["clip_score"] = judges.clip.score(chosen, item.prompt)
        if "prompt_accuracy" not in judges.missing and item.labels:
            judges.attributes.check_labels(item.labels, str(item))
            outcomes.append(hits := _hits(item, video, judges))
            values["prompt_accuracy"] = float(np.mean(list(hits.values()))) if hits else None
        videos.append((item.name, values))
    return _summarise(videos, outcomes, judges, _fid(portraits, pooled))


def _identity(
    item: Item, chosen: Frames, judges: Judges, portraits: _Portraits
) -> tuple[Values, npt.NDArray[np.float32]]:
    """Values of the faces, and features [N, D] of those that were found; [0, 0] without inception.onnx."""
    if item.portrait not in portraits.faces:
        picture = item.portrait_pixels()
        portraits.faces[item.portrait] = judges.faces.read_portrait(picture, f"{item}: portrait {item.portrait.name}")
        if "fid" not in judges.missing:
            found = judges.inception.of_faces(picture[None], portraits.faces[item.portrait])
            portraits.features[item.portrait] = found[0]
    portrait, faces = portraits.faces[item.portrait], judges.faces.read(chosen)
    values: Values = {"faces_found": float(faces.found.mean())}
    for name in faces.embeddings:
        values[f"facesim_{name}"] = float(similarities(faces, portrait, name).mean())
        values[f"facesim_{name}_published"] = published_similarity(faces, portrait, name)
    first = next(name for name in RECOGNISERS if name in faces.embeddings)
    values["identity_stability"] = stability.identity_stability(faces.embeddings[first])
    features = np.zeros((0, 0), np.float32)
    if "fid" not in judges.missing:
        values["face_distance"] = None
        if faces.found.any():
            features = judges.inception.of_faces(chosen, faces)
            values["face_distance"] = squared_distance(features, portraits.features[item.portrait])
    return values, features


def _paired(item: Item, video: Frames, judges: Judges) -> Values:
    reference = item.reference_frames()
    if reference is None:
        return {}
    try:
        values: Values = {"psnr": distance.psnr(video, reference), "ssim": distance.ssim(video, reference)}
        if "clip_distance" not in judges.missing:
            values["clip_distance"] = judges.clip.feature_distance(video, reference)
    except ValueError as error:
        raise CollectionInvalid(f"{item}: the video and its reference cannot be compared: {error}") from error
    return values


def _hits(item: Item, video: Frames, judges: Judges) -> dict[str, bool]:
    try:
        return prompt_accuracy.hits(judges.attributes.predict(video), item.labels)
    except CollectionInvalid as error:
        raise CollectionInvalid(f"{item}: {error}") from error


def _fid(portraits: _Portraits, pooled: list[npt.NDArray[np.float32]]) -> Estimate | str | None:
    """The Fréchet distance between the faces of all videos and those of all portraits, each portrait counted once."""
    found = [features for features in pooled if len(features)]
    if not portraits.features:
        return None
    if not found:
        return "no face was found in any video"
    faces = np.concatenate(found)
    try:
        return Estimate(frechet_distance(faces, np.stack(list(portraits.features.values()))), None, None, len(faces))
    except TooFewSamples as error:
        return str(error)


def _summarise(
    videos: list[tuple[str, Values]], outcomes: list[dict[str, bool]], judges: Judges, fid: Estimate | str | None
) -> Scores:
    names = dict.fromkeys(name for _, values in videos for name in values)
    summary: dict[str, Estimate] = {}
    not_computed = {metric: f"needs {', '.join(files)} in the judge folder" for metric, files in judges.missing.items()}
    for name in names:
        known = [value for _, values in videos if (value := values.get(name)) is not None]
        if known:
            summary[name] = estimate(known, *((0.0, 1.0) if name in SHARES else ()))
    if isinstance(fid, Estimate):
        summary["fid"] = fid
    elif fid is not None:
        not_computed["fid"] = fid
    for name in PAIRED:
        if name not in summary:
            not_computed.setdefault(name, "needs a column `reference`: a video of the same person, prompt and noise")
    reasons = {
        "prompt_accuracy": "needs a column for each attribute, holding what the prompt asked for",
        "flicker": "needs a video of three frames or more",
        "identity_stability": "needs a video of two frames or more",
        "face_distance": "no face was found in any video",
    }
    for name, reason in reasons.items():
        if name not in summary:
            not_computed.setdefault(name, reason)
    accuracy = {name: proportion(hits) for name, hits in prompt_accuracy.accuracy(outcomes).items()}
    return Scores(videos, summary, accuracy, not_computed, judges.digests())
