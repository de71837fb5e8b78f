"""Defines a scene (place, clothes, expression, motion, speech) and the prompts that describe it."""

from __future__ import annotations

import hashlib
from dataclasses import astuple, dataclass

import numpy as np

from consisid_nano.world.person import Colour

CLOTHES: dict[str, Colour] = {
    "red": (208, 36, 44),
    "green": (40, 140, 64),
    "blue": (40, 84, 200),
    "yellow": (240, 200, 48),
    "purple": (132, 56, 168),
    "white": (240, 240, 240),
}
GARMENTS = ("shirt", "striped sweater", "jacket")
PLACES: dict[str, tuple[str, ...]] = {
    "beach": ("on the beach", "by the sea"),
    "forest": ("in the forest", "among the trees"),
    "city": ("in the city", "in front of tall buildings"),
    "snow": ("in the snow", "in the snowy mountains"),
    "night": ("at night under the moon", "under the stars"),
    "library": ("in a library", "in front of a bookshelf"),
}
EXPRESSIONS: dict[str, tuple[str, ...]] = {
    "calm": ("looks calm", "has a calm face"),
    "happy": ("smiles", "looks happy"),
    "sad": ("looks sad", "is sad"),
    "surprised": ("looks surprised", "is surprised"),
    "angry": ("looks angry", "is angry"),
}
MOTIONS: dict[str, tuple[str, ...]] = {
    "still": ("stays still", "does not move"),
    "left": ("moves left", "moves to the left"),
    "right": ("moves right", "moves to the right"),
    "nods": ("nods", "nods slowly"),
    "turns": ("turns the head", "slowly turns"),
    "closer": ("comes closer", "moves closer to the camera"),
}
SPEECH: dict[str, tuple[str, ...]] = {"silent": ("says nothing", "is silent"), "talks": ("talks", "speaks to us")}
SUBJECTS = ("a person", "somebody", "the person")

HELD_OUT_SHARE = 8  # one combination of this many is held out

LABELS: dict[str, tuple[str, ...]] = {
    "place": tuple(PLACES),
    "garment": GARMENTS,
    "colour": tuple(CLOTHES),
    "expression": tuple(EXPRESSIONS),
    "motion": tuple(MOTIONS),
    "speech": tuple(SPEECH),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """One value of each label in `LABELS`."""

    place: str
    garment: str
    colour: str
    expression: str
    motion: str
    speech: str

    def labels(self) -> dict[str, str]:
        return dict(zip(LABELS, astuple(self), strict=True))

    @property
    def held_out(self) -> bool:
        """Whether this combination is held out of training, decided by a digest of its values."""
        digest = hashlib.sha256("/".join(astuple(self)).encode()).digest()
        return digest[0] % HELD_OUT_SHARE == 0


def scene(seed: int, *, held_out: bool | None = None) -> Scene:
    """Return the scene with this seed; `held_out` selects combinations that are held out (True) or not (False)."""
    rng = np.random.default_rng([2, seed])
    while True:
        found = Scene(*(names[int(rng.integers(len(names)))] for names in LABELS.values()))
        if held_out is None or found.held_out == held_out:
            return found


def prompt(where: Scene, seed: int) -> str:
    """Describe a scene in English; the seed determines the wording."""
    rng = np.random.default_rng([3, seed])

    def one_of(phrases: tuple[str, ...]) -> str:
        return phrases[int(rng.integers(len(phrases)))]

    clothes = f"a {where.colour} {where.garment}"
    subject, place = one_of(SUBJECTS), one_of(PLACES[where.place])
    acts = [
        one_of(EXPRESSIONS[where.expression]), one_of(MOTIONS[where.motion]), one_of(SPEECH[where.speech]),
    ]  # fmt: skip
    rng.shuffle(acts)
    doing = f"{acts[0]}, {acts[1]} and {acts[2]}"
    sentence = one_of(
        (
            f"{subject} in {clothes} {doing} {place}.",
            f"{place}, {subject} in {clothes} {doing}.",
            f"{subject} {place} wears {clothes}, {doing}.",
        )
    )
    return sentence[0].upper() + sentence[1:]
