"""What a request leaves behind for those after it, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.consent import Consent
from consisid_runtime.door.dispatch import Dispatch
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.records import Request
from consisid_runtime.door.request import Asked, Tensor, check
from consisid_runtime.door.signing import Signing
from consisid_runtime.errors import ConsentRefused

IMAGE, PROMPT = Tensor("image", "UINT8", [3], b"abc"), Tensor("prompt", "BYTES", [1], [b"a man"])
HANDLE = "h" * 32


class Upstream:
    """Answers without an output."""

    def __init__(self, folder: Path) -> None:
        self.port = SimpleNamespace(tickets=folder)

    async def stream(self, message: Any, on_event: Any) -> Any:
        return SimpleNamespace(outputs=[], raw_output_contents=[])


def asked(tensors: list[Tensor], **parameters: Any) -> Asked:
    return check("consisid_stream", tensors, parameters, [], "")


def run(folder: Path, request: Asked, hook: Any = None) -> float | None:
    """Runs it, and returns what a request that came then would wait for a second one of unknown length."""

    async def main() -> float | None:
        async def serving(patience: float) -> Upstream:
            return Upstream(folder)

        queue = Queue(limits := Limits())
        demand: Any = SimpleNamespace(plan=lambda _: None, at_least=lambda _: 0.0, seconds=lambda _: None)
        meters: Any = SimpleNamespace(computed=lambda *_, **__: None)
        supervisor: Any = SimpleNamespace(serving=serving)
        dispatch = Dispatch(limits, queue, demand, supervisor, Consent(hook), Signing(), meters)
        await dispatch.run(request, "me", line=Request("http", "me", ""))
        await queue.enter("me", float("inf"), urgent=False)
        queue.begin(urgent=False)
        return queue.wait()

    return asyncio.run(main())


def test_only_a_video_says_how_long_a_video_takes(tmp_path: Path) -> None:
    assert run(tmp_path, asked([IMAGE, PROMPT])) is not None
    assert run(tmp_path, asked([IMAGE], action="identify")) is None
    assert run(tmp_path, asked([], action="forget", identity=HANDLE)) is None


def test_a_face_may_be_forgotten_without_consent(tmp_path: Path) -> None:
    def refuse(*_: object) -> str:
        return "not this person"

    run(tmp_path, asked([], action="forget", identity=HANDLE), refuse)
    for request in (asked([IMAGE], action="identify"), asked([PROMPT], identity=HANDLE), asked([IMAGE, PROMPT])):
        with pytest.raises(ConsentRefused):
            run(tmp_path, request, refuse)
