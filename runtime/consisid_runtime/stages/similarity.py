"""How alike the faces of a video are to the portrait that it was made from, by the recogniser that conditioned it.

The recogniser is ArcFace, whose embedding of the portrait the network was given: it is no independent judge.
"""

from __future__ import annotations

import io
import time
from collections.abc import Generator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from consisid_runtime.errors import ConsisIDError, ImageTooSmall, NoFace, RequestCancelled, ServerTimeout
from consisid_runtime.events import Event, Progress
from consisid_runtime.plan import Plan
from consisid_runtime.signatures import EMBEDDING
from consisid_runtime.stages.table import STAGES, Info, Values

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from consisid_runtime.stages.flow import Call

NAME = "similarity"
MOST = 8
"""Frames that are looked at."""

_FACE = next(stage for stage in STAGES if stage.name == "face")
_EMBED = replace(_FACE, signature=replace(_FACE.signature, outputs=(EMBEDDING, *_FACE.signature.outputs[-1:])))
"""The face stage, asked for an embedding alone."""


def chosen(count: int) -> list[int]:
    """At most `MOST` of so many frames, evenly spaced, the first and the last among them."""
    return [round(float(place)) for place in np.linspace(0, count - 1, min(MOST, count))]


def similarity(values: Values, plan: Plan, look: Progress, call: Call) -> Generator[Event, None, Info]:
    """Compare the largest face of some frames with the portrait's.

    Args:
        values: "embedding" of the portrait, "frames" [n, height, width, 3], "prompt".
        look: called before each frame; raise in it to cancel.
        call: runs the face stage, which caches nothing.

    Returns the cosine between the embeddings, its "mean" and "minimum" over the frames with a face, None without one;
    "frames" that were looked at, "frames_without_face"; and "seconds". Where the frames cannot be compared, "problem"
    has the error's code, and "mean" and "minimum" are None.
    """
    begin, found, nobody, problem = time.perf_counter(), [], 0, None
    own, places = _array(values["embedding"]), chosen(len(values["frames"]))
    for number, place in enumerate(places):
        yield Event(NAME, number, len(places))
        look(NAME, number, len(places))
        given = {"image": _file(values["frames"][place]), "prompt": values["prompt"], "embed": [1]}
        try:
            outputs, _ = call(_EMBED, given, plan, {}, look)
        except (NoFace, ImageTooSmall):  # a frame may have fewer pixels than a photograph must have
            nobody += 1
            continue
        except (RequestCancelled, ServerTimeout):
            raise
        except Exception as error:  # the video is there: it is not lost for this
            problem = error.code if isinstance(error, ConsisIDError) else type(error).__name__
            break
        found.append(_cosine(own, _array(outputs["embedding"])))
    known = found and problem is None
    return {
        "mean": round(sum(found) / len(found), 4) if known else None,
        "minimum": round(min(found), 4) if known else None,
        "frames": len(found) + nobody,
        "frames_without_face": nobody,
        **({} if problem is None else {"problem": problem}),
        "seconds": time.perf_counter() - begin,
    }


def _file(frame: NDArray[np.uint8]) -> bytes:
    """A frame as the face stage takes images: without loss, and without work."""
    Image.fromarray(frame).save(out := io.BytesIO(), "BMP")
    return out.getvalue()


def _cosine(one: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    return float(one @ other / (np.linalg.norm(one) * np.linalg.norm(other)))


def _array(value: Any) -> NDArray[np.float64]:
    return np.asarray(value, np.float64)
