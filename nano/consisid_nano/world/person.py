"""Defines a drawn person: everything that is the same in all pictures of them, drawn from a seed."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, get_args, get_origin, get_type_hints

import numpy as np

Colour = tuple[float, float, float]
"""Red, green, blue, 0 to 255."""

HELD_OUT_PEOPLE = 1_000_000
"""First seed of the people who are held out of training."""

SKINS: tuple[Colour, ...] = (
    (255, 224, 200), (246, 205, 172), (233, 182, 142), (214, 158, 116), (186, 128, 88), (150, 98, 64), (112, 72, 48),
)  # fmt: skip
HAIR: dict[str, Colour] = {
    "black": (28, 24, 26),
    "brown": (92, 58, 34),
    "auburn": (150, 64, 32),
    "red": (206, 96, 36),
    "blond": (226, 186, 98),
    "grey": (150, 150, 154),
    "white": (234, 232, 226),
}
EYES: dict[str, Colour] = {
    "brown": (96, 56, 24),
    "blue": (48, 112, 214),
    "green": (48, 148, 72),
    "grey": (132, 140, 148),
    "amber": (212, 136, 24),
}
STYLES = ("bald", "crew cut", "side parting", "curls", "bob", "long", "bun", "mohawk")
GLASSES = ("none", "round", "square")
FRAMES: dict[str, Colour] = {"black": (24, 24, 28), "red": (196, 32, 40), "gold": (214, 168, 52)}
BEARDS = ("none", "moustache", "goatee", "full beard")
SCARS = ("none", "left cheek", "right cheek", "forehead")
MOLES = ("none", "left cheek", "right cheek", "chin")


@dataclass(frozen=True, slots=True)
class Person:
    """A drawn person. Lengths are in units of half the height of the face; "left" is the viewer's left.

    Attributes:
        face_width: half the width of the face. jaw: 0 pointed to 1 square.
        skin, hair, eyes, lips: colours; `hair_colour`, `eye_colour` and `frame_colour` name what they are shades of.
        eye_distance: between the centres. eye_size: half the width of an eye. eye_slant: rise of its outer corner.
        brow_height: above the eye. brow_weight: thickness. nose_width, nose_length, mouth_width, lip_weight: sizes.
        freckles: positions and sizes [(x, y, radius)], empty for none.
    """

    seed: int
    face_width: float
    jaw: float
    skin: Colour
    hair: Colour
    hair_colour: str
    hair_style: str
    hair_length: float
    eyes: Colour
    eye_colour: str
    eye_distance: float
    eye_size: float
    eye_slant: float
    brow_height: float
    brow_weight: float
    nose_width: float
    nose_length: float
    mouth_width: float
    lip_weight: float
    lips: Colour
    glasses: str
    frame_colour: str
    beard: str
    scar: str
    mole: str
    freckles: tuple[tuple[float, float, float], ...]

    def attributes(self) -> dict[str, str]:
        """Return the categorical attributes: attribute → one of its names in `ATTRIBUTES`."""
        return {
            "hair_colour": self.hair_colour,
            "hair_style": self.hair_style,
            "eye_colour": self.eye_colour,
            "glasses": self.glasses,
            "beard": self.beard,
            "freckles": "yes" if self.freckles else "no",
            "scar": self.scar,
            "mole": self.mole,
        }

    def shape(self) -> np.ndarray[Any, np.dtype[np.float32]]:
        """Return all continuous attributes, colours scaled to 0 to 1: float32 [n]."""
        numbers: list[float] = []
        hints = get_type_hints(Person)
        for field in fields(self):
            value = getattr(self, field.name)
            if hints[field.name] is float:
                numbers.append(value)
            elif get_origin(hints[field.name]) is tuple and get_args(hints[field.name])[0] is float:
                numbers += [level / 255 for level in value]
        return np.array(numbers, np.float32)


ATTRIBUTES: dict[str, tuple[str, ...]] = {
    "hair_colour": tuple(HAIR),
    "hair_style": STYLES,
    "eye_colour": tuple(EYES),
    "glasses": GLASSES,
    "beard": BEARDS,
    "freckles": ("no", "yes"),
    "scar": SCARS,
    "mole": MOLES,
}


def person(seed: int) -> Person:
    """Return the person with this seed."""
    rng = np.random.default_rng([1, seed])

    def pick(choices: Any, share_of_first: float | None = None) -> Any:
        choices = list(choices)
        rest = None
        if share_of_first is not None:
            rest = [share_of_first] + [(1 - share_of_first) / (len(choices) - 1)] * (len(choices) - 1)
        return choices[int(rng.choice(len(choices), p=rest))]

    def shade(colour: Colour, spread: float) -> Colour:
        shifted = np.array(colour) * (1 + spread * rng.uniform(-1, 1)) + 4 * rng.uniform(-1, 1, 3)
        red, green, blue = np.clip(shifted, 0, 255).tolist()
        return red, green, blue

    tone = rng.uniform(0, len(SKINS) - 1)
    low, part = SKINS[int(tone)], tone - int(tone)
    high = SKINS[int(tone) + 1] if int(tone) + 1 < len(SKINS) else low
    skin = shade(tuple((1 - part) * a + part * b for a, b in zip(low, high, strict=True)), 0.03)  # type: ignore[arg-type]
    hair_colour, eye_colour, frame_colour = pick(HAIR), pick(EYES), pick(FRAMES)
    return Person(
        seed=seed,
        face_width=rng.uniform(0.66, 0.92),
        jaw=rng.uniform(0, 1),
        skin=skin,
        hair=shade(HAIR[hair_colour], 0.12),
        hair_colour=hair_colour,
        hair_style=pick(STYLES),
        hair_length=rng.uniform(0, 1),
        eyes=shade(EYES[eye_colour], 0.08),
        eye_colour=eye_colour,
        eye_distance=rng.uniform(0.64, 0.82),
        eye_size=rng.uniform(0.17, 0.23),
        eye_slant=rng.uniform(-0.05, 0.05),
        brow_height=rng.uniform(0.24, 0.34),
        brow_weight=rng.uniform(0.05, 0.12),
        nose_width=rng.uniform(0.09, 0.2),
        nose_length=rng.uniform(0.34, 0.48),
        mouth_width=rng.uniform(0.24, 0.36),
        lip_weight=rng.uniform(0.05, 0.1),
        lips=shade((0.72 * skin[0] + 40, 0.45 * skin[1] + 10, 0.45 * skin[2] + 12), 0.1),
        glasses=pick(GLASSES, 0.6),
        frame_colour=frame_colour,
        beard=pick(BEARDS, 0.6),
        scar=pick(SCARS, 0.7),
        mole=pick(MOLES, 0.65),
        freckles=_freckles(rng) if rng.random() < 0.4 else (),
    )


def _freckles(rng: np.random.Generator) -> tuple[tuple[float, float, float], ...]:
    """Return 12 to 18 freckles (x, y, radius) on both cheeks, at random positions."""
    spots = []
    for side in (-1, 1):
        for _ in range(int(rng.integers(6, 10))):
            spots.append((side * rng.uniform(0.16, 0.56), rng.uniform(0.2, 0.5), rng.uniform(0.035, 0.055)))
    return tuple(spots)
