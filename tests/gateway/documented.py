"""Whether answers are those of the OpenAPI document: their status, their type, and JSON by its schema."""

from __future__ import annotations

import re
from typing import Any

import httpx2
from jsonschema import Draft202012Validator


class Document:
    """Of one application.

    Attributes:
        seen: the operations and statuses that were answered.
    """

    def __init__(self, openapi: dict[str, Any]) -> None:
        self._openapi = openapi
        self.seen: set[tuple[str, int]] = set()
        # What is fixed is meant before what has a name in its place.
        templates = sorted(openapi["paths"], key=lambda path: (path.count("{"), path))
        self._paths = [(re.compile(re.sub(r"\{\w+\}", "[^/]+", path)), openapi["paths"][path]) for path in templates]

    def check(self, answer: httpx2.Response) -> None:
        """Fails for an answer that is not documented. What has no operation is not asked about."""
        path = answer.request.url.raw_path.decode().partition("?")[0]
        found = next((item for pattern, item in self._paths if pattern.fullmatch(path)), {})
        operation = found.get(answer.request.method.lower())
        if operation is None:
            assert answer.status_code in (404, 405) or path == "/openapi.json"
            return
        name = operation["operationId"]
        documented = operation["responses"].get(str(answer.status_code))
        assert documented is not None, f"{name} does not document {answer.status_code}"
        self.seen.add((name, answer.status_code))
        kind = answer.headers.get("content-type", "").partition(";")[0]
        content = documented.get("content", {})
        if answer.status_code in (204, 304) or answer.request.method == "HEAD":
            return
        assert kind in content, f"{name} documents {list(content)} for {answer.status_code}, not {kind!r}"
        if kind == "application/json":
            answer.read()
            schema = {**content[kind]["schema"], "components": self._openapi["components"]}
            Draft202012Validator(schema).validate(answer.json())
