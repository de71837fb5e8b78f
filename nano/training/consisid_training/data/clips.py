"""Draws the training set: for each person a clip, and the inputs of the face networks from two portraits.

The arrays are memory-mapped `.npy` files with one row for each of N people:

    clips     uint8 [N, 17, 64, 96, 3]      videos
    crops     uint8 [N, 4, 112, 112, 3]     ArcFace's crops of two portraits and of the clip's first and last frame
    greys     uint8 [N, 2, 336, 336]        the portraits aligned, without background, grey: the CLIP tower's input
    colours   uint8 [N, 2, 64, 96, 3]       the same in colour, stretched to a frame: the VAE's input
    points    float32 [N, 17, 5, 2]         keypoints in the clip
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from consisid_nano.world import (
    ATTRIBUTES,
    FRAMES,
    HEIGHT,
    HELD_OUT_PEOPLE,
    LABELS,
    WIDTH,
    clip,
    person,
    portrait,
    scene,
)
from consisid_nano.world.person import Person
from consisid_nano.world.picture import Picture
from consisid_runtime.stages.face.geometry import CROP, CROP_BORDER, arcface_transform, crop_transform, warp

BACKGROUND = (0, 7, 8, 9, 14, 15, 16, 18)
"""BiSeNet's labels that the face stage replaces by white."""
ARRAYS: dict[str, tuple[tuple[int, ...], str]] = {
    "clips": ((FRAMES, HEIGHT, WIDTH, 3), "uint8"),
    "crops": ((4, 112, 112, 3), "uint8"),
    "greys": ((2, 336, 336), "uint8"),
    "colours": ((2, HEIGHT, WIDTH, 3), "uint8"),
    "points": ((FRAMES, 5, 2), "float32"),
}
_memmap: Any = np.lib.format.open_memmap
_BLOCK = 100


def draw(folder: Path, people: int, *, first: int = 0, processes: int = 2) -> None:
    """Draw people `first`, `first` + 1, … into `folder`; only held-out people appear in held-out scenes.

    Resumable: finished blocks are not drawn again. Raises `FileExistsError` if `folder` holds other people.
    """
    folder.mkdir(parents=True, exist_ok=True)
    requested, file = {"people": people, "first": first}, folder / "people.json"
    if file.exists() and (found := json.loads(file.read_text())) != requested:
        raise FileExistsError(f"{folder} holds {found}, requested were {requested}; choose another folder")
    file.write_text(json.dumps(requested) + "\n")
    for name, (shape, dtype) in ARRAYS.items():
        if not (folder / f"{name}.npy").exists():
            _memmap(folder / f"{name}.npy", "w+", dtype, (people, *shape)).flush()
    done = folder / "blocks"
    done.mkdir(exist_ok=True)
    missing = [start for start in range(0, people, _BLOCK) if not (done / str(start)).exists()]
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.starmap(_block, [(folder, start, min(start + _BLOCK, people), first) for start in missing], chunksize=1)


def load(folder: Path, name: str) -> NDArray[Any]:
    """Map one array of `folder`, read-only."""
    return np.load(folder / f"{name}.npy", mmap_mode="r")  # type: ignore[no-any-return]


def latent_scale(encoded: Path) -> float:
    """Return the VAE's `scaling_factor`: the inverse standard deviation of the latents of the first 500 clips."""
    return 1 / float(np.asarray(load(encoded, "targets")[:500], np.float32).std())


def appearance(numbers: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Return attributes of people: classes [N, attributes], and continuous ones [N, n] standardised over them."""
    people = [person(number) for number in numbers]
    classes = [[names.index(who.attributes()[name]) for name, names in ATTRIBUTES.items()] for who in people]
    shapes = np.stack([who.shape() for who in people])
    return np.array(classes), (shapes - shapes.mean(0)) / (shapes.std(0, ddof=1) + np.float32(1e-6))


def scene_classes(numbers: Sequence[int], labels: Sequence[str]) -> NDArray[np.int64]:
    """Return the classes [N, labels] of these `labels` of people's scenes."""
    scenes = [scene_of(number).labels() for number in numbers]
    return np.array([[LABELS[name].index(found[name]) for name in labels] for found in scenes])


def scene_of(seed: int) -> Any:
    """Return the scene of the person with this seed."""
    return scene(seed, held_out=seed >= HELD_OUT_PEOPLE)


def _block(folder: Path, start: int, stop: int, first: int) -> None:
    cv2.setNumThreads(1)
    arrays = {name: np.load(folder / f"{name}.npy", mmap_mode="r+") for name in ARRAYS}
    for row in range(start, stop):
        seed = first + row
        who = person(seed)
        video = clip(who, scene_of(seed), seed)
        arrays["clips"][row], arrays["points"][row] = video.pixels, video.keypoints
        for number in (0, 1):
            grey, colour, crop = face_stage_view(who, 2 * seed + number)
            arrays["greys"][row, number], arrays["colours"][row, number] = grey, colour
            arrays["crops"][row, number] = crop
        for number, frame in ((2, 0), (3, FRAMES - 1)):
            matrix = arcface_transform(video.keypoints[frame], 112)
            arrays["crops"][row, number] = warp(video.pixels[frame], matrix, 112, border=(0, 0, 0))
    for array in arrays.values():
        array.flush()
    (folder / "blocks" / str(start)).touch()


def face_stage_view(who: Person, seed: int) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.uint8]]:
    """Process a portrait as the face stage does: grey [336, 336], colour [64, 96, 3], ArcFace's crop [112, 112, 3].

    Uses the true labels and `noisy_landmarks` instead of networks.
    """
    picture = portrait(who, seed)
    points = noisy_landmarks(picture, np.random.default_rng([7, seed]))
    crop, labels = aligned_crop(picture, points)
    background = np.isin(labels, BACKGROUND)
    colour = np.where(background[..., None], np.uint8(255), crop)
    grey: Any = cv2.cvtColor(crop, cv2.COLOR_RGB2GRAY)
    grey = np.where(background, np.uint8(255), grey)
    small = np.asarray(Image.fromarray(grey).resize((336, 336), Image.Resampling.BICUBIC))
    stretched = np.asarray(Image.fromarray(colour).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))
    return small, stretched, warp(picture.pixels, arcface_transform(points, 112), 112, border=(0, 0, 0))


def noisy_landmarks(picture: Picture, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return a portrait's keypoints [5, 2] with noise that imitates the error of a network."""
    apart = float(np.linalg.norm(picture.keypoints[0] - picture.keypoints[1]))
    return picture.keypoints + rng.normal(0, 0.015 * apart, (5, 2)).astype(np.float32)


def aligned_crop(picture: Picture, points: NDArray[np.float32]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    """Return the face stage's aligned crop of a portrait, uint8 [512, 512, 3], and its labels [512, 512]."""
    matrix = crop_transform(points)
    assert matrix is not None
    labels: Any = cv2.warpAffine(picture.labels, matrix, (CROP, CROP), flags=cv2.INTER_NEAREST)
    return warp(picture.pixels, matrix, CROP, CROP_BORDER), labels


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="where to write the arrays")
    parser.add_argument("--people", type=int, default=12_000, help="number of people")
    parser.add_argument(
        "--first", type=int, default=0, help=f"seed of the first; people from {HELD_OUT_PEOPLE} on are held out"
    )
    arguments = parser.parse_args()
    draw(arguments.folder, arguments.people, first=arguments.first)
