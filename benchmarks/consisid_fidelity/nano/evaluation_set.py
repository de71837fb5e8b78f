"""The nano model's evaluation set: person, scene, prompt and seed of each case.

Every person and every combination in a scene is held out of training. Case k is always the same, so that runs can be
compared in pairs.
"""

from __future__ import annotations

import io
from dataclasses import dataclass

from PIL import Image

from consisid_nano.world import HELD_OUT_PEOPLE, Person, Scene, clip, person, portrait, prompt, scene
from consisid_runtime.mp4 import Frames
from consisid_runtime.plan import Geometry
from consisid_runtime.stages.face.image import Pixels

GALLERY_SIZE = 100
"""People in the gallery for rank-1 identification; also the largest number of cases."""
SMALL = 8
"""Number of cases that the tests use."""
_FIRST = HELD_OUT_PEOPLE + 10_000  # training may validate on the held-out people before


@dataclass(frozen=True, slots=True)
class Case:
    """One video to generate.

    Attributes:
        number: counted from 0; the person's row in the gallery.
        name: of the case, for messages.
        person, scene: what the video has to show.
        prompt: text that describes the scene.
        seed: of the request.
    """

    number: int
    name: str
    person: Person
    scene: Scene
    prompt: str
    seed: int

    def portrait(self) -> Pixels:
        """The portrait of the request, uint8 [512, 512, 3] RGB."""
        return portrait(self.person, 2 * self.person.seed).pixels

    def other_portrait(self) -> Pixels:
        """Another portrait of the same person, for the gallery, uint8 [512, 512, 3] RGB."""
        return portrait(self.person, 2 * self.person.seed + 1).pixels

    def drawn(self, geometry: Geometry) -> Frames:
        """The ground truth: this person in this scene, drawn by the world; uint8 [F, H, W, 3] RGB in the given size."""
        truth = clip(
            self.person, self.scene, self.person.seed, geometry.frames, height=geometry.height, width=geometry.width
        )
        return truth.pixels

    def donor(self) -> Case:
        """The case whose person's signals replace this one's in variants that use another person."""
        return case(self.number + 1)


def case(number: int) -> Case:
    """The case with this number; deterministic."""
    seed = _FIRST + number
    where = scene(seed, held_out=True)
    return Case(number, f"person {seed}", person(seed), where, prompt(where, seed), number)


def cases(count: int) -> list[Case]:
    """The first `count` cases."""
    return [case(number) for number in range(count)]


def png(pixels: Pixels) -> bytes:
    """A picture, uint8 [H, W, 3] RGB, as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
