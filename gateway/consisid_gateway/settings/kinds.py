"""Types of settings, and what each accepts, in words."""

from __future__ import annotations

import re
from typing import Annotated
from urllib.parse import parse_qs, urlsplit

from pydantic import AfterValidator

from consisid_runtime.settings.kinds import Wanted

_SERVER = re.compile(r"(grpcs?|https?)://\S+")
_NAME = re.compile(r"[\w.-]{1,128}", re.ASCII)
_HOST = re.compile(r"[a-z0-9.:-]+", re.IGNORECASE | re.ASCII)
_ORIGIN = re.compile(r"https?://[a-z0-9.:\[\]-]+", re.IGNORECASE | re.ASCII)


def _database(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("sqlite", "postgresql") or (parts.scheme == "sqlite" and not url.startswith("sqlite:////")):
        raise ValueError("neither SQLite nor PostgreSQL")
    if parts.password is not None or "password" in parse_qs(parts.query):
        raise ValueError("other users see command lines, and logs have them")
    return url


def _objects(url: str) -> str:
    if not url.startswith(("/", "s3://")) or "\0" in url:
        raise ValueError("neither a folder nor S3")
    return url


def _matching(pattern: re.Pattern[str], *, listed: bool = False) -> AfterValidator:
    def check(text: str) -> str:
        if not all(pattern.fullmatch(part) for part in (split(text) if listed else [text])):
            raise ValueError("no such thing")
        return text

    return AfterValidator(check)


def split(text: str) -> list[str]:
    """What a setting lists, separated by commas."""
    return [part.strip() for part in text.split(",") if part.strip()]


DatabaseUrl = Annotated[
    str,
    AfterValidator(_database),
    Wanted(
        "sqlite:////ABSOLUTE/PATH or postgresql://USER@HOST/NAME, without a password: PGPASSWORD or PGPASSFILE has it",
        shown=False,
    ),
]
ObjectsUrl = Annotated[str, AfterValidator(_objects), Wanted("a folder's absolute path, or s3://BUCKET/PREFIX")]
ServerUrl = Annotated[
    str, _matching(_SERVER), Wanted("grpc://host:port or http://host:port; with TLS grpcs://, https://")
]
Name = Annotated[str, _matching(_NAME), Wanted("1 to 128 of A–Z a–z 0–9 . _ -")]
Hosts = Annotated[str, _matching(_HOST, listed=True), Wanted("host names without ports, separated by commas")]
Origins = Annotated[
    str, _matching(_ORIGIN, listed=True), Wanted("origins such as https://studio.example, separated by commas")
]
