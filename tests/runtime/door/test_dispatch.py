"""What a request leaves behind for those after it, without a server."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from consisid_runtime.door.admission.queue import Queue
from consisid_runtime.door.consent import Consent
from consisid_runtime.door.dispatch import Dispatch, _seconds
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.records import Request
from consisid_runtime.door.request import Asked, Tensor, check
from consisid_runtime.door.signing import Signing
from consisid_runtime.errors import ConsentRefused, InvalidOption, ServerDied
from consisid_runtime.options import Options
from consisid_runtime.plan import Plan

IMAGE, PROMPT = Tensor("image", "UINT8", [3], b"abc"), Tensor("prompt", "BYTES", [1], [b"a man"])
HANDLE = "h" * 32


class Upstream:
    """Answers without an output."""

    def __init__(self, folder: Path) -> None:
        self.port, self.hurt = SimpleNamespace(tickets=folder), False

    async def stream(self, message: Any, on_event: Any) -> Any:
        return SimpleNamespace(outputs=[], raw_output_contents=[])


def asked(tensors: list[Tensor], **parameters: Any) -> Asked:
    return check("consisid_stream", tensors, parameters, [], "")


def run(folder: Path, request: Asked, hook: Any = None, plan: Any = lambda _: None) -> float | None:
    """Runs it, and returns what a request that came then would wait for a second one of unknown length."""

    async def main() -> float | None:
        upstream = Upstream(folder)

        async def serving(patience: float) -> Upstream:
            return upstream

        queue = Queue(limits := Limits())
        demand: Any = SimpleNamespace(plan=plan, at_least=lambda _: 0.0, seconds=lambda _: None)
        meters: Any = SimpleNamespace(computed=lambda *_, **__: None)
        supervisor: Any = SimpleNamespace(serving=serving, upstream=upstream)
        foresight: Any = SimpleNamespace(watch=lambda _: None, learn=lambda _: None)
        dispatch = Dispatch(limits, queue, demand, foresight, supervisor, Consent(hook), Signing(), meters)
        await dispatch.run(request, "me", line=Request("http", "me", ""))
        await queue.enter("me", float("inf"), urgent=False)
        queue.begin(urgent=False)
        return queue.wait()

    return asyncio.run(main())


def test_only_a_video_says_how_long_a_video_takes(tmp_path: Path) -> None:
    assert run(tmp_path, asked([IMAGE, PROMPT])) is not None
    assert run(tmp_path, asked([IMAGE], action="identify")) is None
    assert run(tmp_path, asked([], action="forget", identity=HANDLE)) is None


def test_what_a_stage_did_not_compute_says_nothing_of_it() -> None:
    info = {"seconds": {"face": 0.001, "denoise": 2.0, "decode": 1.0, "similarity": 9.0}, "face": {"face_cached": True}}
    assert _seconds(info) == {"denoise": 2, "decode": 1}
    assert _seconds({**info, "face": {"face_cached": False}}) == {"face": 0.001, "denoise": 2, "decode": 1}
    for broken in ({}, {"seconds": 1}, {"seconds": {"decode": 1}}, {"seconds": {"denoise": 0}}, {**info, "face": 3}):
        assert _seconds(broken) is None


def test_what_makes_no_video_is_within_all_limits(tmp_path: Path) -> None:
    """A probe of a server whose operator allows fewer steps than a request has by default."""

    def plan(_: Options) -> Plan:
        raise InvalidOption("this server's limit --max-steps is 25, the request asks for 50")

    run(tmp_path, asked([], action="trial"), plan=plan)
    run(tmp_path, asked([IMAGE], action="identify"), plan=plan)
    for request in (asked([IMAGE, PROMPT]), asked([], action="estimate")):
        with pytest.raises(InvalidOption, match="--max-steps"):
            run(tmp_path, request, plan=plan)


def test_a_face_may_be_forgotten_without_consent(tmp_path: Path) -> None:
    def refuse(*_: object) -> str:
        return "not this person"

    run(tmp_path, asked([], action="forget", identity=HANDLE), refuse)
    for request in (asked([IMAGE], action="identify"), asked([PROMPT], identity=HANDLE), asked([IMAGE, PROMPT])):
        with pytest.raises(ConsentRefused):
            run(tmp_path, request, refuse)


def test_a_server_with_a_model_that_stands_still_is_ended_before_the_next_request_begins(tmp_path: Path) -> None:
    done: list[str] = []

    class Hurt(Upstream):
        async def stream(self, message: Any, on_event: Any) -> Any:
            done.append("asked")
            self.hurt = True
            raise ServerDied("a process stands still")

    async def main() -> None:
        upstream = Hurt(tmp_path)

        async def serving(patience: float) -> Upstream:
            return upstream

        async def restart(upstream: Upstream) -> None:
            await asyncio.sleep(0.05)
            done.append("ended")

        demand: Any = SimpleNamespace(plan=lambda _: None, at_least=lambda _: 0.0, seconds=lambda _: None)
        supervisor: Any = SimpleNamespace(serving=serving, restart=restart, upstream=upstream)
        foresight: Any = SimpleNamespace(watch=lambda _: None)
        meters: Any = SimpleNamespace(computed=lambda *_, **__: None)
        limits = Limits()
        dispatch = Dispatch(limits, Queue(limits), demand, foresight, supervisor, Consent(None), Signing(), meters)
        both = [dispatch.run(asked([IMAGE, PROMPT]), "me", line=Request("http", "me", "")) for _ in range(2)]
        assert {type(error) for error in await asyncio.gather(*both, return_exceptions=True)} == {ServerDied}

    asyncio.run(main())
    assert done == ["asked", "ended"] * 2
