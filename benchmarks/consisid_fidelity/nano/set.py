"""The nano model's evaluation sets: who, where, in which words, from which noise; fixed, so that runs are pairs.

Every person and every combination of a scene is held out of training. Case k is the same in every set.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from consisid_nano.world import HELD_OUT_PEOPLE, Person, Scene, clip, person, portrait, prompt, scene
from consisid_runtime.options import Geometry
from consisid_runtime.stages.face.image import Pixels
from consisid_runtime.video import Frames

GALLERY = 100
"""People among whom one is to be identified; also the largest set."""
SMALL = 8
"""Cases of the set that the tests run."""
_FIRST = HELD_OUT_PEOPLE + 10_000  # training may look at held-out people before them


@dataclass(frozen=True, slots=True)
class Case:
    """One video to make.

    Attributes:
        number: counted from 0; the person's column in the gallery.
        name: of the case, wherever it is reported.
        prompt: in words.
        noise: the request's seed.
    """

    number: int
    name: str
    person: Person
    scene: Scene
    prompt: str
    noise: int

    def portrait(self) -> Pixels:
        """The picture that the request brings, uint8 [512, 512, 3] RGB."""
        return portrait(self.person, 2 * self.person.seed).pixels

    def other_portrait(self) -> Pixels:
        """Another picture of the same person, for the gallery."""
        return portrait(self.person, 2 * self.person.seed + 1).pixels

    def drawn(self, geometry: Geometry) -> Frames:
        """The truth: this person in this scene as the world draws it, uint8 [F, H, W, 3] in the checkpoint's size."""
        truth = clip(
            self.person, self.scene, self.person.seed, geometry.frames, height=geometry.height, width=geometry.width
        )
        return truth.pixels

    def donor(self) -> Case:
        """The case whose signals stand in for this one's where somebody else's are asked for."""
        return case(self.number + 1)


def case(number: int) -> Case:
    """The case with this number, always the same one."""
    seed = _FIRST + number
    where = scene(seed, held_out=True)
    return Case(number, f"person {seed}", person(seed), where, prompt(where, seed), number)


def cases(count: int) -> list[Case]:
    """The first `count` cases."""
    return [case(number) for number in range(count)]


def png(pixels: Pixels) -> bytes:
    """A PNG file's bytes: what the face stage reads."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
