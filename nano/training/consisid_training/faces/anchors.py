"""Which anchors stand for which face, and how far off a network's answers for them are."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from consisid_training.data.pictures import Shot

Floats = NDArray[np.float32]

UNDECIDED = 0.3

_NONE = -1
_NEAR, _FAR = 0.16, 0.3
"""An anchor that near a face's centre, in edges of the face, must find it; one farther than the other must not."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """Centres [A, 2] and edges [A] in pixels.

    Attributes:
        octaves: anchors whose edge is at most this far from a face's must find it; `UNDECIDED` octaves further they
            may find it or not.
    """

    centres: Floats
    edges: Floats
    octaves: float


@dataclass(frozen=True, slots=True)
class Wanted:
    """What B pictures' A anchors should say. `score` [B, A]: 1 face, 0 none, −1 either.

    Of the P anchors that must or may find a face, in the order of `score`'s elements that are not 0: `corners` [P, 4]
    and `points` [P, 10], both from the anchor's centre, in its edges, and `scale` [P], the face's edge in the anchor's.
    Whichever scores best answers, so all of them must know where the face is.
    """

    score: Tensor
    corners: Tensor
    points: Tensor
    scale: Tensor


def wanted(anchors: Anchors, shots: Sequence[Shot]) -> Wanted:
    scores, corners, points, scales = [], [], [], []
    for shot in shots:
        own, sure, edge = _match(anchors, shot.boxes)
        score = np.where(own == _NONE, 0.0, np.where(sure, 1.0, -1.0)).astype(np.float32)
        chosen = np.flatnonzero(own >= 0)
        centre, unit, face = anchors.centres[chosen], anchors.edges[chosen], own[chosen]
        scores.append(score)
        corners.append((shot.boxes[face] - np.tile(centre, 2)) / unit[:, None])
        points.append((shot.keypoints[face] - centre[:, None]).reshape(-1, 10) / unit[:, None])
        scales.append(edge[face] / unit)
    joined = (np.concatenate(parts).astype(np.float32) for parts in (corners, points, scales))
    return Wanted(torch.from_numpy(np.stack(scores)), *(torch.from_numpy(part) for part in joined))


def loss(score: Tensor, corners: Tensor, points: Tensor, goal: Wanted) -> tuple[Tensor, dict[str, float]]:
    """Of probabilities [B, A], corners [B, A, 4] and points [B, A, 10]; and what it is made of.

    "points" is the mean distance of a keypoint, and "corners" of an edge, in edges of the face.
    """
    found, sure = goal.score != 0, goal.score >= 0
    count = max(1, int((goal.score == 1).sum()))
    recognised = F.binary_cross_entropy(score[sure], goal.score[sure], reduction="sum") / count
    face = goal.scale[:, None]
    box_error = (corners[found] - goal.corners) / face
    point_error = (points[found] - goal.points) / face
    total = recognised + 4 * _smooth(box_error) + 20 * _smooth(point_error)
    distance = point_error.detach().reshape(-1, 5, 2).norm(dim=2)
    measured = {"score": recognised.item(), "points": _mean(distance), "corners": _mean(box_error.detach().abs())}
    return total, measured


def _match(anchors: Anchors, boxes: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_], Floats]:
    """The face that each anchor [A] may find, or `_NONE`; whether it must [A]; and the faces' edges [N]."""
    own = np.full(len(anchors.edges), _NONE, np.int64)
    sure = np.zeros(len(anchors.edges), np.bool_)
    edge = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(axis=1))
    for face, box in enumerate(boxes):
        middle = (box[:2] + box[2:]) / 2
        distance = np.linalg.norm(anchors.centres - middle, axis=1) / edge[face]
        octaves = np.abs(np.log2(anchors.edges / edge[face]))
        fitting = octaves <= anchors.octaves
        near = fitting & (distance < max(_NEAR, float(distance[fitting].min(initial=np.inf)) + 1e-3))
        possible = near | (octaves <= anchors.octaves + UNDECIDED) & (distance < _FAR)
        own[possible & (near | ~sure)] = face
        sure |= near
    return own, sure, edge


def _smooth(error: Tensor) -> Tensor:
    """Summed over what is known of a face; linear from a hundredth of its edge."""
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.01, reduction="sum") / max(1, len(error))


def _mean(error: Tensor) -> float:
    return float(error.mean()) if error.numel() else 0.0
