"""The options of a request: immutable, their values are checked when `Options` is constructed."""

from __future__ import annotations

import functools
import math
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal

from consisid_runtime.errors import EmptyPrompt, InvalidOption
from consisid_runtime.option_names import meant
from consisid_runtime.tiers import TIERS

SCHEDULERS = ("dpm", "ddim")
KEYPOINTS = ("crop", "source")
MAX_STEPS = 1000
MAX_SEED = 2**63 - 1
MAX_GUIDANCE = 100.0
MAX_FACE_SCALE = 10.0
MAX_FPS = 120
MAX_PROMPT = 2**16
"""Bytes of a prompt in UTF-8. A text encoder reads far fewer: 226 tokens of at most 16 characters for ConsisID."""

_INVISIBLE = {"Zs", "Zl", "Zp", "Cc", "Cf"}
"""Unicode's general categories of spaces, controls and format characters such as zero-width ones."""
# Triton server holds request parameters as C strings, which end at NUL; UTF-8 cannot encode lone surrogates.
_NO_CHARACTER = re.compile(r"[\0\ud800-\udfff]")


def _checking_names(options: type[Options]) -> type[Options]:
    """Its constructor raises `InvalidOption` for an unknown name, where a dataclass raises TypeError."""
    construct = options.__init__

    @functools.wraps(construct)
    def init(self: Options, *values: Any, **named: Any) -> None:
        _check_names(named)
        construct(self, *values, **named)

    options.__init__ = init  # type: ignore[method-assign]
    return options


@_checking_names
@dataclass(frozen=True, slots=True)
class Options:
    """All parameters of a request except the image and the prompt.

    Raises `InvalidOption` for an invalid value or an unknown name. NumPy's numbers become Python's.

    Attributes:
        negative_prompt: what the video should not show, at most 64 KiB; used when `guidance` is above 1.
        seed: the same seed gives the same bytes on the same engine and hardware.
        tier: "exact", "fp8", "fast" or "draft"; None takes the bundle's first. A bundle lists those that it can run.
        steps: denoising steps, 1 to 1000; never one more, as diffusers takes at 62 of these numbers (61 is the first).
            None takes the tier's own: 50, and 25 in "draft".
        guidance: classifier-free guidance scale; at 1 or below there is no guidance. None takes 6, which "draft"
            applies in its first steps alone.
        dynamic_guidance: the reference's cosine ramp of the guidance scale (`use_dynamic_cfg`).
        frames: frames of the video, 8k + 1; None takes the checkpoint's own number.
        height: height of the video in pixels; None takes the checkpoint's own.
        width: width of the video in pixels; None takes the checkpoint's own.
        fps: frames per second of the MP4; does not change the frames.
        scheduler: "dpm" (CogVideoX DPM++ 2M SDE) or "ddim".
        face_index: None selects the largest face, a number counts from the largest (0), "only" refuses several faces.
        face_scale: strength of the local identity path, relative to the checkpoint's own.
        global_identity: the low-frequency path; False sets the image latents to zero.
        local_identity: the high-frequency path; False skips the face attention.
        keypoints: the coordinates of the keypoints, for checkpoints trained with keypoints: "crop" uses those of the
            aligned face; "source" draws source-image coordinates on the crop, as the reference implementation does.
    """

    negative_prompt: str = ""
    seed: int = 0
    tier: str | None = None
    steps: int | None = None
    guidance: float | None = None
    dynamic_guidance: bool = False
    frames: int | None = None
    height: int | None = None
    width: int | None = None
    fps: int = 8
    scheduler: str = "dpm"
    face_index: int | Literal["only"] | None = None
    face_scale: float = 1.0
    global_identity: bool = True
    local_identity: bool = True
    keypoints: str = "crop"

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _plain(getattr(self, field.name)))
        _text("negative_prompt", self.negative_prompt)
        _whole("seed", self.seed, 0, MAX_SEED)
        if self.tier is not None:
            _choice("tier", self.tier, tuple(TIERS))
        if self.steps is not None:
            _whole("steps", self.steps, 1, MAX_STEPS)
        if self.guidance is not None:
            _number("guidance", self.guidance, 0.0, MAX_GUIDANCE)
        _whole("fps", self.fps, 1, MAX_FPS)
        _number("face_scale", self.face_scale, 0.0, MAX_FACE_SCALE)
        _choice("scheduler", self.scheduler, SCHEDULERS)
        _choice("keypoints", self.keypoints, KEYPOINTS)
        for name in ("frames", "height", "width"):
            if getattr(self, name) is not None:
                _whole(name, getattr(self, name), 1, 2**31 - 1)
        for name in ("dynamic_guidance", "global_identity", "local_identity"):
            if not isinstance(getattr(self, name), bool):
                raise InvalidOption(f"{name} must be true or false, got {_shown(getattr(self, name))}")
        if isinstance(self.face_index, str):
            if self.face_index != "only":
                raise InvalidOption(f'face_index must be a whole number or "only", got {_shown(self.face_index)}')
        elif self.face_index is not None:
            _whole("face_index", self.face_index, 0, 1000)

    @classmethod
    def from_mapping(cls, values: Mapping[str, object]) -> Options:
        """Options from the parameters of a request. Raises `InvalidOption`, naming the nearest option for a typo."""
        _check_names(values)
        return cls(**values)  # type: ignore[arg-type]

    def to_mapping(self) -> dict[str, str | int | float | bool]:
        """The options that differ from their defaults, as parameters of a request; the inverse of `from_mapping`."""
        changed = {f.name: getattr(self, f.name) for f in fields(self)}
        return {name: value for name, value in changed.items() if value != getattr(_DEFAULTS, name)}


def check_prompt(prompt: object) -> str:
    """Returns `prompt`.

    Raises `InvalidOption` if it is not text, has more than 64 KiB, or contains a NUL or a lone surrogate; `EmptyPrompt`
    if nothing in it is visible.
    """
    text = _text("prompt", prompt)
    if all(unicodedata.category(character) in _INVISIBLE for character in text):
        raise EmptyPrompt("the prompt is empty; describe what the video shows")
    return text


def _check_names(names: Iterable[object]) -> None:
    known = [field.name for field in fields(Options)]
    for name in names:
        if name not in known:
            option = meant(str(name), known)
            hint = f"did you mean {option!r}?" if option else f"known options: {', '.join(known)}"
            raise InvalidOption(f"unknown option {_shown(name)}; {hint}")


def _plain(value: object) -> object:
    """A number or truth value of NumPy, also in an array without axes, as Python's; anything else as it is."""
    if getattr(value, "shape", None) != ():
        return value
    kinds: dict[object, type] = {"b": bool, "i": int, "u": int, "f": float}
    kind = kinds.get(getattr(getattr(value, "dtype", None), "kind", None))
    return value if kind is None else kind(value)


def _text(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise InvalidOption(f"{name} must be text, got {_shown(value)}")
    if len(value) > MAX_PROMPT or len(value.encode(errors="replace")) > MAX_PROMPT:
        raise InvalidOption(f"{name} may have at most {MAX_PROMPT} bytes of UTF-8, got {len(value)} characters")
    bad = _NO_CHARACTER.search(value)
    if bad:
        raise InvalidOption(f"{name} must be text, got U+{ord(bad[0]):04X} at character {bad.start()}; remove it")
    return value


def _whole(name: str, value: object, low: int, high: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise InvalidOption(f"{name} must be a whole number from {low} to {high}, got {_shown(value)}")


def _number(name: str, value: object, low: float, high: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == math.inf:
        raise InvalidOption(f"{name} must be a finite number from {low:g} to {high:g}, got {_shown(value)}")
    if not low <= value <= high:
        raise InvalidOption(f"{name} must be from {low:g} to {high:g}, got {_shown(value)}")


def _choice(name: str, value: object, choices: tuple[str, ...]) -> None:
    if not isinstance(value, str) or value not in choices:
        raise InvalidOption(f"{name} must be one of {', '.join(choices)}, got {_shown(value)}")


def _shown(value: object) -> str:
    """A value as text for a message. Python cannot convert integers of more than 4300 digits."""
    try:
        text = repr(value)
    except ValueError:
        return f"a very large {type(value).__name__}"
    return text if len(text) <= 200 else f"{text[:200]}…"


_DEFAULTS = Options()
