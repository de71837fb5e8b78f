"""All fields of a request for a video, checked as the runtime checks them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from consisid_gateway.api.failures import FieldRefused, of_field
from consisid_gateway.api.reading import fields as read
from consisid_gateway.api.reading.body import Fields
from consisid_gateway.api.reading.portrait import portrait_of
from consisid_runtime.errors import InvalidOption
from consisid_runtime.options import Options, check_prompt

OPTIONS = tuple(field.name for field in fields(Options))
KNOWN = (
    *("prompt", "input_reference", "character", "characters", "model", "size", "seconds", "priority", "webhook"),
    *OPTIONS,
)
"""Fields of a request to create a video."""
OF_REMIX = tuple(name for name in KNOWN if name not in ("input_reference", "character", "characters", "model"))

_SPELLED = {"characters[]": "characters", "characters[][id]": "characters"}
"""Names of a form, as the SDK writes what JSON has as a list."""
_PRIORITIES = ("default", "urgent")


@dataclass(frozen=True, slots=True)
class Asked:
    """What is asked for.

    Attributes:
        portrait: an image file's bytes; None where a character is named, and in a remix.
        webhook: as it came; its address is not checked yet.
        urgent: None where nothing was said of it.
    """

    prompt: str
    options: Options
    portrait: bytes | None = None
    character: str | None = None
    webhook: str | None = None
    urgent: bool | None = None


def asked(given: Fields, *, model: str, upload_bytes: int) -> Asked:
    """A video of a portrait or a character. Raises `FieldRefused`."""
    values = _known(given, KNOWN)
    portrait, character = _of_whom(values, upload_bytes)
    if values.get("model", model) != model:
        raise FieldRefused(InvalidOption(f"model must be {model!r}, got {str(values['model'])[:80]!r}"), "model")
    return _asked(values, Options(), portrait, character)


def asked_of_remix(given: Fields, before: Options) -> Asked:
    """The same identity with another prompt, and the options of the video before where no others are given.

    Raises `FieldRefused`.
    """
    return _asked(_known(given, OF_REMIX), before, None, None)


def _asked(values: Mapping[str, Any], before: Options, portrait: bytes | None, character: str | None) -> Asked:
    with of_field("prompt"):
        if "prompt" not in values:
            raise InvalidOption("prompt is missing; describe what the video shows")
        prompt = check_prompt(values["prompt"])
    webhook = values.get("webhook")
    with of_field("webhook"):
        webhook = None if webhook is None else read.text("webhook", webhook, 2000)
    priority = values.get("priority")
    if priority is not None and priority not in _PRIORITIES:
        problem = f"priority must be one of {', '.join(_PRIORITIES)}, got {str(priority)[:80]!r}"
        raise FieldRefused(InvalidOption(problem), "priority")
    urgent = None if priority is None else priority == "urgent"
    return Asked(prompt, _options(values, before), portrait, character, webhook, urgent)


def _known(given: Fields, known: tuple[str, ...]) -> dict[str, Any]:
    """Without what is null, which in JSON stands for what is not given."""
    values: dict[str, Any] = {}
    for name, value in given.items():
        plain = _SPELLED.get(name, name)
        with of_field(plain[:80]):
            read.require_known([plain], known)
            if plain in values:
                raise InvalidOption(f"{plain} is given twice")
            if isinstance(value, bytes) and plain != "input_reference":
                raise InvalidOption(f"{plain} must be a text of the form, got a file of {len(value)} bytes")
        if value is not None:
            values[plain] = value
    return values


def _of_whom(values: Mapping[str, Any], upload_bytes: int) -> tuple[bytes | None, str | None]:
    named = [name for name in ("input_reference", "character", "characters") if name in values]
    if len(named) != 1:
        problem = f"{' and '.join(named)} exclude each other" if named else "input_reference is missing"
        raise FieldRefused(
            InvalidOption(f"{problem}; send the portrait as input_reference, or the id of a character"),
            named[-1] if named else "input_reference",
        )
    name = named[0]
    with of_field(name):
        if name == "input_reference":
            return portrait_of(name, values[name], upload_bytes), None
        found = values[name]
        if isinstance(found, list):
            if len(found) != 1:
                raise InvalidOption(f"{name} must name one character, got {len(found)}")
            found = found[0]
        if isinstance(found, dict) and found.keys() == {"id"}:
            found = found["id"]
        return None, read.text(name, found, 64)


def _options(values: Mapping[str, Any], before: Options) -> Options:
    chosen: dict[str, Any] = dict(before.to_mapping())
    for name in OPTIONS:
        if name in values:
            with of_field(name):
                chosen[name] = read.option(name, values[name])
                Options.from_mapping({name: chosen[name]})
    if "size" in values:
        with of_field("size"):
            if "width" in values or "height" in values:
                raise InvalidOption("size excludes width and height: they say the same")
            width, height = read.size(values["size"])
            Options(width=width, height=height)
            chosen |= {"width": width, "height": height}
    if "seconds" in values:
        with of_field("seconds"):
            if "frames" in values:
                raise InvalidOption("seconds excludes frames: they say the same")
            length = read.seconds(values["seconds"])
            chosen["frames"] = read.frames_of(length, Options.from_mapping(chosen).fps)
    return Options.from_mapping(chosen)
