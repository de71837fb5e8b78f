"""Who did what is one line each, and nothing of a face, a prompt or a name is in it."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.types import Message, Receive, Scope, Send

from consisid_gateway.access import audit
from consisid_gateway.access.audit import Audit
from consisid_gateway.access.caller import Caller
from consisid_runtime.errors import FileInaccessible

ADA = Caller("ada", "key_1")


@pytest.fixture
def lines(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "audit.jsonl"
    audit.write_to(path)
    yield path
    for handler in list(audit.log.handlers):
        audit.log.removeHandler(handler)
        handler.close()
    audit.log.propagate = True


def read(path: Path) -> list[dict[str, str]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def answer(
    method: str, path: str, status: int = 200, *, code: str | None = None, subject: str | None = None, ends: bool = True
) -> None:
    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        state = scope.setdefault("state", {})
        state |= {"caller": ADA, "address": "192.0.2.1"}
        if code:
            state["code"] = code
        if subject:
            state["subject"] = subject
        await send({"type": "http.response.start", "status": status, "headers": []})
        await send({"type": "http.response.body", "body": b"a cat", "more_body": not ends})

    async def send(message: Message) -> None: ...

    asyncio.run(Audit(app)({"type": "http", "method": method, "path": path}, None, send))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("method", "path", "action", "subject"),
    [
        ("DELETE", "/v1/videos/video_1", "video.deleted", "video_1"),
        ("POST", "/v1/videos/video_1/cancel", "video.cancelled", "video_1"),
        ("POST", "/v1/videos/video_1/remix", "video.remixed", "video_1"),
        ("GET", "/v1/videos/video_1/content", "video.downloaded", "video_1"),
        ("DELETE", "/v1/videos/characters/char_1", "character.deleted", "char_1"),
        ("POST", "/v1/videos", "video.created", None),
        ("POST", "/v1/videos/characters", "character.created", None),
    ],
)
def test_each_action_is_a_line(lines: Path, method: str, path: str, action: str, subject: str | None) -> None:
    answer(method, path)
    (line,) = read(lines)
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "action": action,
        "tenant": "ada",
        "key": "key_1",
        "subject": subject,
        "address": "192.0.2.1",
        "outcome": "OK",
    }


def test_what_was_created_is_named(lines: Path) -> None:
    answer("POST", "/v1/videos", subject="video_new")
    assert read(lines)[0]["subject"] == "video_new"


def test_outcomes(lines: Path) -> None:
    answer("POST", "/v1/videos", 429, code="LIMIT_REACHED")
    answer("POST", "/v1/videos", 500)
    answer("GET", "/v1/videos/video_1/content", ends=False)
    assert [line["outcome"] for line in read(lines)] == ["LIMIT_REACHED", "HTTP_500", "ABORTED"]


def test_reading_is_no_action(lines: Path) -> None:
    for path in ("/v1/videos", "/v1/videos/video_1", "/v1/videos/video_1/events", "/", "/v1/videos/a/b/content"):
        answer("GET", path)
    assert lines.read_text() == ""


def test_no_line_can_be_forged(lines: Path) -> None:
    audit.record("video.deleted", ADA, subject='video_1"}\n{"action": "none"', address="x\ny")
    assert len(read(lines)) == 1


def test_refusals_of_the_guards_are_lines(gate, local, lines: Path) -> None:
    gate.ask(method="POST", peer="192.0.2.9")
    local.ask("/v1/videos/video_1/content")
    assert [(line["action"], line["tenant"], line["address"], line["outcome"]) for line in read(lines)] == [
        ("video.created", None, "192.0.2.9", "UNAUTHENTICATED"),
        ("video.downloaded", "local", "127.0.0.1", "OK"),
    ]


def test_the_file_is_its_owners(lines: Path, tmp_path: Path) -> None:
    assert stat.S_IMODE(lines.stat().st_mode) == 0o600
    with pytest.raises(FileInaccessible, match="audit log"):
        audit.write_to(tmp_path / "missing" / "audit.jsonl")
