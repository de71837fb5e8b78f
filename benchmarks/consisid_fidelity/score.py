"""Scores a folder of videos: metrics of each video, means with confidence intervals, metrics not computed and why."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from consisid_fidelity.collection import Item
from consisid_fidelity.errors import CollectionInvalid
from consisid_fidelity.judges import prompt_accuracy
from consisid_fidelity.judges.faces import published_similarity, sample
from consisid_fidelity.judges.judges import SHARES, Judges
from consisid_fidelity.metrics import stability
from consisid_fidelity.metrics.frechet import TooFewSamples, frechet_distance, squared_distance
from consisid_fidelity.metrics.statistics import Estimate, estimate, proportion
from consisid_fidelity.video_metrics import Portraits, Values, face_metrics, reference_metrics
from consisid_runtime.events import Progress
from consisid_runtime.mp4 import Frames

PAIRED = ("psnr", "ssim", "clip_distance")
UNITS = {"psnr": "dB", "flicker": "levels"}


@dataclass(frozen=True, slots=True)
class Scores:
    """The scores of a folder of videos.

    Attributes:
        videos: name and values of each video; a value is None when that video has none.
        summary: metric → mean over videos; "fid" is one value over all faces.
        accuracy: attribute → share of videos that show the labelled class.
        not_computed: metric → reason why it was not computed.
        judges: file of a judge → SHA-256.
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


def score(items: Sequence[Item], judges: Judges, frames: int | None = None, progress: Progress | None = None) -> Scores:
    """Score every video; one is held in memory at a time.

    Args:
        items: from `read_collection`.
        judges: metrics whose judges are missing are listed in `Scores.not_computed`.
        frames: number of frames of each video, evenly spaced, on which faces and CLIPScore are judged; None for all.
            ConsisID's evaluation takes 16. Distances, flicker and attributes always use all frames.
        progress: called with (name of the video, videos done, all videos).

    Raises `NoFace` for a portrait without a face, `ImageUnreadable` and `VideoUnreadable` for files that cannot be
    read, `CollectionInvalid` for a reference of another shape or a label that its judge does not know. Each message
    names the row.
    """
    portraits, videos, pooled, outcomes = Portraits(judges), [], [], []
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
    item: Item, chosen: Frames, judges: Judges, portraits: Portraits
) -> tuple[Values, npt.NDArray[np.float32]]:
    """Metrics of the faces, and features [N, D] of the faces that were found; [0, 0] without inception.onnx."""
    portrait = portraits.face(item.portrait, item.portrait_pixels, f"{item}: portrait {item.portrait.name}")
    faces = judges.faces.read(chosen)
    values = face_metrics(faces, portrait)
    values |= {f"facesim_{name}_published": published_similarity(faces, portrait, name) for name in faces.embeddings}
    features = np.zeros((0, 0), np.float32)
    if "fid" not in judges.missing:
        values["face_distance"] = None
        if faces.found.any():
            features = judges.inception.of_faces(chosen, faces)
            values["face_distance"] = squared_distance(features, portraits.features(item.portrait))
    return values, features


def _paired(item: Item, video: Frames, judges: Judges) -> Values:
    reference = item.reference_frames()
    if reference is None:
        return {}
    try:
        return reference_metrics(video, reference, judges)
    except ValueError as error:
        raise CollectionInvalid(f"{item}: the video and its reference cannot be compared: {error}") from error


def _hits(item: Item, video: Frames, judges: Judges) -> dict[str, bool]:
    try:
        return prompt_accuracy.hits(judges.attributes.predict(video), item.labels)
    except CollectionInvalid as error:
        raise CollectionInvalid(f"{item}: {error}") from error


def _fid(portraits: Portraits, pooled: list[npt.NDArray[np.float32]]) -> Estimate | str | None:
    """The Fréchet distance between the faces of all videos and those of all portraits, or why there is none.

    Each portrait counts once. None without inception.onnx.
    """
    found = [features for features in pooled if len(features)]
    references = portraits.all_features()
    if not references:
        return None
    if not found:
        return "no face was found in any video"
    faces = np.concatenate(found)
    try:
        return Estimate(frechet_distance(faces, np.stack(references)), None, None, len(faces))
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
