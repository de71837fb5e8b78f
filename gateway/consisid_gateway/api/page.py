"""The page's files, and nothing else of the file system."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from importlib.resources.abc import Traversable

from fastapi import APIRouter
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from consisid_gateway.api.download.ranges import names

_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
}
_HEADERS = {"Cache-Control": "no-cache"}
"""Kept, and asked for again each time. The policy is that of every answer: `SecurityHeaders`."""

router = APIRouter(include_in_schema=False)


@dataclass(frozen=True, slots=True)
class File:
    """What is sent of one file."""

    content: bytes
    kind: str
    tag: str


def _walk(folder: Traversable, prefix: str = "") -> Iterator[tuple[str, File]]:
    for entry in folder.iterdir():
        if entry.is_dir():
            yield from _walk(entry, f"{prefix}{entry.name}/")
        elif kind := _TYPES.get(entry.name[entry.name.rfind(".") :]):
            content = entry.read_bytes()
            yield f"{prefix}{entry.name}", File(content, kind, f'"{hashlib.sha256(content).hexdigest()[:32]}"')


FILES = dict(_walk(files("consisid_gateway") / "page"))
"""Path below the page's folder → file. Other paths are not found: none of a request is ever joined to a folder."""


@router.api_route("/", methods=["GET", "HEAD"])
def index(request: Request) -> Response:
    return _sent(request, FILES["index.html"])


@router.api_route("/page/{path:path}", methods=["GET", "HEAD"])
def part(request: Request, path: str) -> Response:
    if path not in FILES:
        raise HTTPException(404)
    return _sent(request, FILES[path])


def _sent(request: Request, file: File) -> Response:
    headers = _HEADERS | {"ETag": file.tag}
    if names(request.headers.get("if-none-match", ""), file.tag):
        return Response(status_code=304, headers=headers)
    return Response(file.content, headers=headers, media_type=file.kind)
