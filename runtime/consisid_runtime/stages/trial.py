"""A tiny request of nobody, through every network, from which one learns whether a bundle works here."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import numpy as np

from consisid_runtime.options import Options
from consisid_runtime.stages.table import Values
from consisid_runtime.wire import TRIAL

if TYPE_CHECKING:
    from consisid_runtime.bundle import Bundle

_EDGE = 128
"""Of the picture, in pixels; a photograph has at least 64."""


def trial_options(bundle: Bundle) -> Options:
    """The quickest video that a bundle can make: one step without guidance, of the fewest frames.

    Height and width are the checkpoint's own, which many have alone. TensorRT's engines are built for its own number of
    frames, too.
    """
    built = any("profiles" in record for record in bundle.manifest["modules"].values())
    frames = None if built else 2 * bundle.config.geometry.temporal + 1
    return Options(steps=1, guidance=1.0, frames=frames)


def trial_values() -> Values:
    """The inputs of the first stage: coloured noise, which the face stage reads as if a face filled it."""
    from PIL import Image

    pixels = np.random.default_rng(0).integers(0, 256, (_EDGE, _EDGE, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"prompt": "a trial", "image": file.getvalue(), TRIAL: True}
