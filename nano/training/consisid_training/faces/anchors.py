"""Matches anchors with faces, and computes the loss of a detector's outputs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from consisid_training.data.pictures import FacePicture

Floats = NDArray[np.float32]

UNDECIDED = 0.3
"""Octaves beyond `Anchors.octaves` in which an anchor may find a face or not."""

_NONE = -1
_NEAR, _FAR = 0.16, 0.3
"""Distances from a face's centre, in edges of the face: nearer anchors must find it, farther ones must not."""


@dataclass(frozen=True, slots=True)
class Anchors:
    """Centres [A, 2] and edges [A] in pixels.

    Attributes:
        octaves: an anchor must find a face if their edges differ by at most this.
    """

    centres: Floats
    edges: Floats
    octaves: float


@dataclass(frozen=True, slots=True)
class AnchorTargets:
    """Targets of the A anchors of B pictures.

    Attributes:
        score: [B, A], 1 for a face, 0 for none, −1 for either.
        corners, points: [P, 4] and [P, 10] of the P anchors whose score is not 0, relative to the anchor's centre, in
            its edges. All of these need them, because the one with the highest score gives the result.
        scale: [P], edge of the face in edges of the anchor.
    """

    score: Tensor
    corners: Tensor
    points: Tensor
    scale: Tensor


def anchor_targets(anchors: Anchors, pictures: Sequence[FacePicture]) -> AnchorTargets:
    scores, corners, points, scales = [], [], [], []
    for picture in pictures:
        own, sure, edge = _match(anchors, picture.boxes)
        score = np.where(own == _NONE, 0.0, np.where(sure, 1.0, -1.0)).astype(np.float32)
        chosen = np.flatnonzero(own >= 0)
        centre, unit, face = anchors.centres[chosen], anchors.edges[chosen], own[chosen]
        scores.append(score)
        corners.append((picture.boxes[face] - np.tile(centre, 2)) / unit[:, None])
        points.append((picture.keypoints[face] - centre[:, None]).reshape(-1, 10) / unit[:, None])
        scales.append(edge[face] / unit)
    joined = (np.concatenate(parts).astype(np.float32) for parts in (corners, points, scales))
    return AnchorTargets(torch.from_numpy(np.stack(scores)), *(torch.from_numpy(part) for part in joined))


def detection_loss(
    score: Tensor, corners: Tensor, points: Tensor, targets: AnchorTargets
) -> tuple[Tensor, dict[str, float]]:
    """Return the loss of probabilities [B, A], corners [B, A, 4] and points [B, A, 10], and values for the log.

    "points" is the mean error of keypoints and "corners" that of box edges, in edges of the face.
    """
    found, sure = targets.score != 0, targets.score >= 0
    count = max(1, int((targets.score == 1).sum()))
    recognised = F.binary_cross_entropy(score[sure], targets.score[sure], reduction="sum") / count
    face = targets.scale[:, None]
    box_error = (corners[found] - targets.corners) / face
    point_error = (points[found] - targets.points) / face
    total = recognised + 4 * _smooth(box_error) + 20 * _smooth(point_error)
    distance = point_error.detach().reshape(-1, 5, 2).norm(dim=2)
    measured = {"score": recognised.item(), "points": _mean(distance), "corners": _mean(box_error.detach().abs())}
    return total, measured


def _match(anchors: Anchors, boxes: Floats) -> tuple[NDArray[np.int64], NDArray[np.bool_], Floats]:
    """Return the face that each anchor may find [A], or `_NONE`; whether it must [A]; and the faces' edges [N]."""
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
    """Smooth L1 loss, summed over the values of a face; linear from a hundredth of its edge on."""
    return F.smooth_l1_loss(error, torch.zeros_like(error), beta=0.01, reduction="sum") / max(1, len(error))


def _mean(error: Tensor) -> float:
    return float(error.mean()) if error.numel() else 0.0
