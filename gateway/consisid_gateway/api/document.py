"""The OpenAPI document: what FastAPI cannot see of bodies, answers and errors."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from consisid_gateway.api.answers import Refusal
from consisid_gateway.api.reading.fields import KINDS
from consisid_gateway.errors import BodyUnreadable, LimitReached, ScopeMissing, StorageUnavailable
from consisid_runtime import options
from consisid_runtime.errors import (
    Busy,
    ConsisIDError,
    EmptyPrompt,
    ImageTooLarge,
    ImageTooSmall,
    ImageUnreadable,
    InvalidOption,
    RequestCancelled,
    RequestTooLarge,
    Unauthenticated,
)
from consisid_runtime.tiers import TIERS

Responses = dict[int | str, dict[str, Any]]

Kinds = tuple[type[ConsisIDError], ...]

OF_BODIES: Kinds = (BodyUnreadable, InvalidOption, RequestTooLarge, RequestCancelled, Busy)
OF_PROMPTS: Kinds = (EmptyPrompt,)
OF_PORTRAITS: Kinds = (ImageUnreadable, ImageTooLarge, ImageTooSmall)
_ALWAYS: Kinds = (Unauthenticated, ScopeMissing, LimitReached, ConsisIDError, StorageUnavailable)

_RANGE = {"Accept-Ranges": "bytes", "ETag": "of the bytes", "Content-Disposition": "a name for a file"}
_CONTENT = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in ("video/mp4", "image/jpeg")}


def headers(meanings: dict[str, str]) -> dict[str, Any]:
    return {name: {"description": text, "schema": {"type": "string"}} for name, text in meanings.items()}


BYTES: Responses = {
    200: {"description": "All bytes.", "content": _CONTENT, "headers": headers(_RANGE)},
    206: {
        "description": "The bytes of the range.",
        "content": _CONTENT,
        "headers": headers(_RANGE | {"Content-Range": "which of how many"}),
    },
    304: {"description": "The caller has these bytes."},
}
POLL = headers({"openai-poll-after-ms": "milliseconds after which to ask again"})


def errors(*kinds: type[ConsisIDError]) -> Responses:
    """The answers of an operation that may refuse so, beside what each may be refused for."""
    found: dict[int, dict[str, str]] = defaultdict(dict)
    for kind in kinds + _ALWAYS:
        found[kind.http][kind.code] = (kind.__doc__ or "").partition("\n")[0]
    return {
        status: {
            "model": Refusal,
            "description": "  \n".join(f"`{code}`: {text}" for code, text in sorted(codes.items())),
        }
        for status, codes in sorted(found.items())
    }


_RANGES: dict[str, tuple[float, float]] = {
    "seed": (0, options.MAX_SEED),
    "steps": (1, options.MAX_STEPS),
    "guidance": (0, options.MAX_GUIDANCE),
    "fps": (1, options.MAX_FPS),
    "face_scale": (0, options.MAX_FACE_SCALE),
    "frames": (1, 2**31 - 1),
    "height": (1, 2**31 - 1),
    "width": (1, 2**31 - 1),
}
_CHOICES = {"tier": tuple(TIERS), "scheduler": options.SCHEDULERS, "keypoints": options.KEYPOINTS}
_TYPES = {bool: "boolean", int: "integer", float: "number", str: "string"}
_FIELDS: dict[str, dict[str, Any]] = {
    "prompt": {"type": "string", "minLength": 1, "maxLength": options.MAX_PROMPT},
    "character": {"type": "string", "description": "the id of a character, in place of input_reference"},
    "characters": {"type": "string", "description": "the same as `character`"},
    "model": {"type": "string"},
    "size": {"type": "string", "pattern": "^[0-9]{1,5}x[0-9]{1,5}$", "description": "WIDTHxHEIGHT in pixels"},
    "seconds": {"type": "string", "description": "the nearest number of frames, 8k + 1, is made"},
    "priority": {"type": "string", "enum": ["default", "urgent"]},
    "webhook": {"type": "string", "format": "uri", "description": "called when the job has ended"},
}
_FILE = {"type": "string", "format": "binary"}
_URL = {
    "type": "object",
    "required": ["image_url"],
    "additionalProperties": False,
    "properties": {"image_url": {"type": "string", "description": "data:image/…;base64,… alone: nothing is fetched"}},
}


def body(names: Sequence[str], required: Sequence[str], file: str | None = None) -> dict[str, Any]:
    """The same fields as JSON and as a form. `file` names the one that is an image."""
    fields = {name: _field(name) for name in names if name != file}

    def form(image: dict[str, Any]) -> dict[str, Any]:
        shown = fields if file is None else {file: image, **fields}
        return {
            "schema": {
                "type": "object",
                "required": list(required),
                "properties": shown,
                "additionalProperties": False,
            }
        }

    content = {"application/json": form(_URL), "multipart/form-data": form(_FILE)}
    return {"requestBody": {"required": True, "content": content}}


def _field(name: str) -> dict[str, Any]:
    if name not in KINDS:
        return _FIELDS.get(name, {"type": "string"})
    kinds = [
        {"type": _TYPES[kind]} for kind in sorted(KINDS[name] - ({int} if float in KINDS[name] else set()), key=str)
    ]
    found: dict[str, Any] = kinds[0] if len(kinds) == 1 else {"anyOf": kinds}
    if name in _CHOICES:
        found["enum"] = list(_CHOICES[name])
    if name in _RANGES:
        found["minimum"], found["maximum"] = _RANGES[name]
    return found


def install(app: FastAPI) -> None:
    """Have the application's document be made here. FastAPI's own 422 is answered as 400."""

    def document() -> dict[str, Any]:
        if app.openapi_schema is None:
            found = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
            for path in found["paths"].values():
                for operation in path.values():
                    operation["responses"].pop("422", None)
            for name in ("HTTPValidationError", "ValidationError"):
                found["components"]["schemas"].pop(name, None)
            app.openapi_schema = found
        return app.openapi_schema

    app.openapi = document  # type: ignore[method-assign]
