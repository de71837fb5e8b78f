"""The face stage: reads the identity of one person, and their aligned portrait, from a photograph."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from consisid_runtime.errors import FaceIndexOutOfRange, MultipleFaces, NoFace
from consisid_runtime.plan import Plan
from consisid_runtime.stages.face.finder import THREADS, FaceFinder, Found
from consisid_runtime.stages.face.geometry import (
    ALIGNER_MEAN,
    CROP,
    CROP_BORDER,
    Detections,
    Floats,
    crop_transform,
    decode,
    fit,
    overlaps,
    template,
    transform,
    warp,
)
from consisid_runtime.stages.face.image import Pixels, read_photo
from consisid_runtime.stages.face.quality import quality

if TYPE_CHECKING:
    from consisid_runtime.bundle import Modules

# BiSeNet's labels for everything that is not face or hair: background, ears, earring, neck, necklace, cloth, hat.
_BACKGROUND = (0, 7, 8, 9, 14, 15, 16, 18)
_GREY = (0.299, 0.587, 0.114)
_PARSER_MEAN, _PARSER_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CLIP_MEAN, _CLIP_STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


@dataclass(frozen=True, slots=True)
class Face:
    """One person, as the rest of the pipeline sees them.

    Attributes:
        tokens: float32 [1, Q, D], the high-frequency identity.
        portrait: uint8 [512, 512, 3] RGB, the aligned face on white: the low-frequency identity.
        keypoints: float32 [5, 2], (x, y) of eyes, nose and mouth corners, in the coordinates `Options.keypoints` names.
        embedding: float32 [512], what ArcFace sees, not normalised; part of what `tokens` are made from.
        info: "faces" seen, "face_index" taken, its "face_box" in pixels of the original upright image, "face_score",
            "face_found_by", which is "aligner" where the detector found nobody, and what `quality` returns.
    """

    tokens: Tensor
    portrait: Pixels
    keypoints: Floats
    embedding: Floats
    info: dict[str, Any]


class FaceReader:
    """Reads a photograph. Every network looks at the same, chosen face.

    Args:
        bundle: holds the aligner, parser, clip and local_extractor modules and insightface's two files.
        threads: CPU threads of insightface's networks.

    Raises `MissingExtra` without insightface.
    """

    def __init__(self, bundle: Modules, threads: int = THREADS) -> None:
        self._world = bundle.world
        self._finder = FaceFinder(
            bundle.file("face/detector.onnx"), bundle.file("face/recogniser.onnx"), bundle.device, threads
        )
        self._aligner = bundle.module("aligner")
        self._parser = bundle.module("parser")
        self._clip = bundle.module("clip")
        self._extractor = bundle.module("local_extractor")
        self._clip_size = int(bundle.signature("clip").inputs[0].shape[-1])

    def __call__(self, image: bytes, plan: Plan, *, trial: bool = False) -> Face:
        """Read one face.

        Where the detector finds nobody, the aligner's faces are taken, as in the reference implementation.

        Args:
            image: an image file's bytes.
            plan: `face_index` and `keypoints` of its options are used.
            trial: the picture shows nobody: every network runs as if a face filled it.

        Raises `ImageUnreadable`, `ImageTooLarge`, `ImageTooSmall`, `NoFace`, `MultipleFaces`, `FaceIndexOutOfRange`.
        """
        pixels, *size = read_photo(image)
        bgr = np.ascontiguousarray(fit(pixels)[..., ::-1])
        del pixels  # of 64 megapixels they have 183 MiB
        faces = self._finder.find(bgr)
        if trial:
            faces = [_nobody(len(bgr))]
        by_detector = bool(faces)
        if not by_detector:
            faces = _largest_first(self._align(bgr))
        index = _choose(plan.options.face_index, faces, size, self._world)
        face = faces[index]
        landmarks = face.keypoints
        if by_detector:
            aligned_faces = self._align(bgr)
            landmarks = landmarks if trial else _landmarks(aligned_faces, faces, index, self._world)
        matrix = crop_transform(landmarks)
        if matrix is None:
            problem = f"face {index} cannot be aligned: its landmarks coincide"
            raise _no_face(problem, "a larger or clearer picture", self._world)
        aligned = warp(bgr, matrix, CROP, CROP_BORDER)
        crop = torch.from_numpy(aligned[..., ::-1].copy()).permute(2, 0, 1)[None].float() / 255.0
        labels = self._parser({"image": _normalise(crop, _PARSER_MEAN, _PARSER_STD)})["labels"].cpu()
        background = torch.isin(labels, torch.tensor(_BACKGROUND, dtype=labels.dtype))[:, None]
        colour = torch.where(background, 1.0, crop)
        # Where the detector found nobody, the recogniser sees the aligned crop, as in the reference.
        who = self._finder.embed(bgr, face.keypoints) if by_detector else self._finder.embed_crop(aligned)
        identity, hidden = self._identity(who, torch.where(background, 1.0, _grey(crop)))
        tokens = self._extractor({"identity": identity, "clip_hidden": hidden})["face_tokens"]
        source = plan.options.keypoints == "source"
        scale = size[0] / bgr.shape[1], size[1] / bgr.shape[0]
        box = np.array([float(edge) * scale[axis % 2] for axis, edge in enumerate(face.box)], np.float64)
        return Face(
            tokens=tokens,
            # Truncated, not rounded, as in the checkpoint's training.
            portrait=(colour[0].permute(1, 2, 0).numpy() * 255).astype(np.uint8),
            keypoints=face.keypoints if source else transform(face.keypoints, matrix),
            embedding=who,
            info={
                "faces": len(faces),
                "face_index": index,
                "face_box": [round(float(edge), 2) for edge in box],
                "face_score": round(face.score, 4),
                "face_found_by": "detector" if by_detector else "aligner",
                **quality(box, face.keypoints, aligned[..., ::-1], labels[0].numpy()),
            },
        )

    def embed(self, image: bytes) -> Floats:
        """`Face.embedding` of the largest face that the detector finds, without any other network.

        Raises `ImageUnreadable`, `ImageTooLarge`, `ImageTooSmall`, `NoFace`.
        """
        pixels, *size = read_photo(image)
        bgr = np.ascontiguousarray(fit(pixels)[..., ::-1])
        faces = self._finder.find(bgr)
        return self._finder.embed(bgr, faces[_choose(None, faces, size, self._world)].keypoints)

    def _align(self, bgr: Pixels) -> Detections:
        image = torch.from_numpy(bgr.astype(np.float32) - np.array(ALIGNER_MEAN, np.float32)).permute(2, 0, 1)[None]
        heads = self._aligner({"image": image})
        boxes, scores, landmarks = (heads[name][0].numpy(force=True) for name in ("boxes", "scores", "landmarks"))
        return decode(boxes, scores, landmarks, *bgr.shape[:2])

    def _identity(self, who: Floats, grey: Tensor) -> tuple[Tensor, Tensor]:
        """ArcFace's embedding and CLIP's side by side [1, 512 + out], and CLIP's hidden states."""
        small = F.interpolate(grey, size=(self._clip_size, self._clip_size), mode="bicubic", antialias=True)
        clip = self._clip({"image": _normalise(small, _CLIP_MEAN, _CLIP_STD)})
        look = clip["clip_embedding"]
        own = torch.from_numpy(who)[None].to(look)
        return torch.cat((own, look / look.norm(dim=1, keepdim=True)), dim=1), clip["clip_hidden"]


def _nobody(edge: int) -> Found:
    """A face that fills a picture [edge, edge]."""
    return Found(np.array([0, 0, edge, edge], np.float32), 0.0, template(edge))


def _largest_first(found: Detections) -> list[Found]:
    """The aligner's faces as the finder gives its own."""
    areas = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(axis=1)
    order: list[int] = np.argsort(areas, kind="stable")[::-1].tolist()
    return [Found(found.boxes[i], float(found.scores[i]), found.landmarks[i].astype(np.float32)) for i in order]


def _choose(wanted: int | str | None, faces: list[Found], pixels: Sequence[int], world: str | None) -> int:
    count, size = len(faces), f"{pixels[0]}×{pixels[1]}"
    if not count:
        raise _no_face(
            f"no face was found in the {size} image",
            "a picture that shows one face clearly, with space around the head (a close-up that fills the picture is "
            "often missed)",
            world,
        )
    if wanted == "only" and count > 1:
        raise MultipleFaces(
            f"{count} faces were found in the {size} image where one was asked for; crop it, or choose with "
            f"face_index from 0 (largest) to {count - 1}"
        )
    if isinstance(wanted, int) and wanted >= count:
        raise FaceIndexOutOfRange(
            f"face_index is {wanted}, the {size} image has {count} face{'s' if count > 1 else ''}, largest first: "
            f"use 0{f' to {count - 1}' if count > 1 else ''}"
        )
    return wanted if isinstance(wanted, int) else 0


def _landmarks(aligned: Detections, faces: list[Found], index: int, world: str | None) -> Floats:
    """The aligner's landmarks [5, 2] of the chosen face.

    An aligned face belongs to the detected face that it overlaps most, so that a neighbour is never taken instead.
    """
    overlap = overlaps(np.stack([face.box for face in faces]), aligned.boxes)
    own = np.where(overlap.argmax(axis=0) == index, overlap[index], 0.0) if overlap.size else np.zeros(1)
    best = int(own.argmax())
    if own[best] <= 0:
        raise _no_face(
            f"face {index} was found by the detector but not by the aligner",
            "a picture that shows it more from the front, larger, or less covered",
            world,
        )
    landmarks: Floats = aligned.landmarks[best]
    return landmarks


def _no_face(problem: str, remedy: str, world: str | None) -> NoFace:
    return NoFace(f"{problem}; {f'this checkpoint knows {world}: ' if world else ''}use {remedy}")


def _grey(image: Tensor) -> Tensor:
    red, green, blue = image[:, 0:1], image[:, 1:2], image[:, 2:3]
    return (_GREY[0] * red + _GREY[1] * green + _GREY[2] * blue).expand_as(image)


def _normalise(image: Tensor, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    return (image - image.new_tensor(mean).view(-1, 1, 1)) / image.new_tensor(std).view(-1, 1, 1)
