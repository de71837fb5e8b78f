"""Draws the world that nano is trained on: people, portraits, clips and prompts, each determined by a seed.

Imports only NumPy, OpenCV and the standard library.
"""

from consisid_nano.world.person import ATTRIBUTES, HELD_OUT_PEOPLE, Person, person
from consisid_nano.world.picture import FRAMES, HEIGHT, WIDTH, Clip, Picture, clip, portrait
from consisid_nano.world.scene import LABELS, Scene, prompt, scene

__all__ = [
    "ATTRIBUTES",
    "FRAMES",
    "HEIGHT",
    "HELD_OUT_PEOPLE",
    "LABELS",
    "WIDTH",
    "Clip",
    "Person",
    "Picture",
    "Scene",
    "clip",
    "person",
    "portrait",
    "prompt",
    "scene",
]
