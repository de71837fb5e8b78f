"""A whole gateway in a process of its own, and how tests speak with it."""

from __future__ import annotations

import http.client
import io
import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from PIL import Image

from consisid_gateway.jobs import running
from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.running import Owner, Result
from consisid_gateway.objects import names
from consisid_gateway.objects.store import Store

NAME, PROMPT = "Grace Hopper", "a captain salutes the harbour"
"""Of a character and of a video: nothing of them belongs into a log."""


@dataclass
class Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def code(self) -> str:
        """Of the error; "" for what is none."""
        return "" if self.status < 400 else str(self.json["error"]["code"])


@dataclass
class Whole:
    """A running gateway.

    Attributes:
        ada, bob: keys of two tenants; `all` is a third one's, with every scope, `few` may have no more than two jobs.
    """

    process: subprocess.Popen[str]
    url: str
    database: Database
    store: Store
    audit: Path
    ada: str
    bob: str
    all: str
    few: str
    portrait: bytes = field(default_factory=lambda: _jpeg())

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=10)

    def ask(self, method: str, path: str, key: str | None = None, body: bytes | None = None, **headers: str) -> Answer:
        fields = {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            fields["Authorization"] = f"Bearer {key}"
        connection = self.connect()
        try:
            connection.request(method, path, body, fields)
            answer = connection.getresponse()
            return Answer(answer.status, {name.lower(): value for name, value in answer.headers.items()}, answer.read())
        finally:
            connection.close()

    def form(
        self, path: str, key: str | None, *, file: str | None = None, headers: Any = None, **fields: str
    ) -> Answer:
        """Post a form, with the portrait as the field `file`."""
        parts = [
            f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}'.encode()
            for name, value in fields.items()
        ]
        if file is not None:
            head = f'--x\r\nContent-Disposition: form-data; name="{file}"; filename="p.jpg"\r\n\r\n'
            parts.append(head.encode() + self.portrait)
        body = b"\r\n".join([*parts, b"--x--", b""])
        return self.ask("POST", path, key, body, Content_Type="multipart/form-data; boundary=x", **(headers or {}))

    def video(self, key: str, **headers: str) -> str:
        """The id of a new one."""
        answer = self.form("/v1/videos", key, file="input_reference", prompt=PROMPT, headers=headers)
        assert answer.status == 200, answer.body
        return str(answer.json["id"])

    def finish(self, job: str) -> None:
        """As a worker does."""
        with self.database.transaction() as connection:
            owner = Owner(job, "worker", running.claim(connection, job, "worker").epoch)
        key = names.result_of(job, b"video", ".mp4")
        self.store.put(key, b"video")
        with self.database.transaction() as connection:
            running.complete(connection, owner, Result(key, 5, key, key, {"seed": 1}), 3600.0)


def _jpeg() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (96, 128), (200, 150, 120)).save(buffer, "JPEG")
    return buffer.getvalue()
