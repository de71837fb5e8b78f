"""Who did what, one line of JSON each: never a prompt, a portrait, a face or a name."""

from __future__ import annotations

import json
import logging
import logging.handlers
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consisid_gateway.access.caller import Caller
from consisid_runtime.errors import FileInaccessible

log = logging.getLogger("consisid_gateway.audit")

_ID = r"(?P<subject>[A-Za-z0-9_-]{1,64})"
_ACTIONS = {
    ("POST", "/v1/videos"): "video.created",
    ("DELETE", rf"/v1/videos/{_ID}"): "video.deleted",
    ("POST", rf"/v1/videos/{_ID}/cancel"): "video.cancelled",
    ("POST", rf"/v1/videos/{_ID}/remix"): "video.remixed",
    ("GET", rf"/v1/videos/{_ID}/content"): "video.downloaded",
    ("POST", r"/v1/videos/characters"): "character.created",
    ("DELETE", rf"/v1/videos/characters/{_ID}"): "character.deleted",
}
_PATTERNS = [(method, re.compile(path), action) for (method, path), action in _ACTIONS.items()]


def record(
    action: str, caller: Caller | None, *, subject: str | None = None, address: str = "", outcome: str = "OK"
) -> None:
    """One line.

    Args:
        action: such as "video.created", "key.revoked".
        caller: None where it is not known who it was.
        subject: id of the video, the character or the key.
        address: whose it is that the request came from.
        outcome: "OK", or the code of an error.
    """
    line = {
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
        "action": action,
        "tenant": None if caller is None else caller.tenant,
        "key": None if caller is None else caller.key,
        "subject": subject,
        "address": address,
        "outcome": outcome,
    }
    log.info(json.dumps(line))


def write_to(path: Path | None) -> None:
    """Append the lines to a file that this user alone can read, or to standard error. Raises `FileInaccessible`."""
    handler: logging.Handler = logging.StreamHandler(sys.stderr)
    if path is not None:
        try:
            path.touch(mode=0o600)
            # A tool that rotates files may move it: the next line then goes to a new one.
            handler = logging.handlers.WatchedFileHandler(path, encoding="utf-8")
        except OSError as error:
            raise FileInaccessible(f"the audit log {path} cannot be written: {error.strerror}") from error
    handler.setFormatter(logging.Formatter("%(message)s"))
    for former in list(log.handlers):
        log.removeHandler(former)
        former.close()
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    log.propagate = False


class Audit:
    """An ASGI application around another one: a line for each request that creates, ends, changes or takes something.

    It reads from the request's state what others left there: `caller`, `address`, `subject` (the id of what was
    created) and `code` (of the error that was the answer).
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        found = _action(scope) if scope["type"] == "http" else None
        if found is None:
            await self._app(scope, receive, send)
            return
        action, subject = found
        state: dict[str, Any] = scope.setdefault("state", {})
        status, written = 0, False

        def write(outcome: str) -> None:
            nonlocal written
            written = True
            caller, address = state.get("caller"), state.get("address", "")
            record(action, caller, subject=state.get("subject", subject), address=address, outcome=outcome)

        async def watch(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body" and not message.get("more_body"):
                # Before the end of the answer: what was answered is in the log.
                write("OK" if status < 400 else state.get("code", f"HTTP_{status}"))
            await send(message)

        try:
            await self._app(scope, receive, watch)
        finally:
            if not written:
                write("ABORTED")


def _action(scope: Scope) -> tuple[str, str | None] | None:
    for method, path, action in _PATTERNS:
        if scope["method"] == method and (found := path.fullmatch(scope["path"])):
            return action, found.groupdict().get("subject")
    return None
