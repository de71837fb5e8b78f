"""Consent and signatures of a door, without a server; test_secured.py has them over both protocols."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from consisid_runtime.door.consent import Consent
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.request import Asked
from consisid_runtime.door.signing import Signing
from consisid_runtime.errors import ConsentRefused, HookFailed, ServerTimeout
from consisid_runtime.options import Options

ASKED = Asked(
    model="consisid",
    image=b"image",
    prompt="a man",
    checkpoint=None,
    options=Options(seed=3),
    parameters={"seed": 3},
    outputs=("video",),
    urgent=False,
    seconds=None,
    identifier="",
    closing=False,
)


def test_a_door_without_hooks_changes_nothing() -> None:
    async def run() -> None:
        await Consent().ask(ASKED, "me", 0.0)
        answer = object()
        assert await Signing().sign_answer(answer) is answer

    asyncio.run(run())


def test_no_more_calls_of_a_function_at_once_than_a_limit_allows() -> None:
    running: list[int] = []
    most: list[int] = []

    def allow(*_: object) -> None:
        running.append(1)
        most.append(len(running))
        time.sleep(0.02)
        running.pop()

    async def run(at_once: int) -> int:
        consent, until = Consent(allow, Limits(consents=at_once)), time.monotonic() + 10
        await asyncio.gather(*(consent.ask(ASKED, "me", until) for _ in range(6)))
        return max(most)

    assert asyncio.run(run(1)) == 1
    assert asyncio.run(run(6)) > 1


def test_a_function_that_does_not_return_ends_with_the_deadline() -> None:
    """It keeps neither the loop nor the door's end, and has its place back once it returns."""
    leave = threading.Event()

    def hang(*_: object) -> str:
        leave.wait(20)
        return "too late"

    async def run() -> None:
        consent, begin = Consent(hang), time.monotonic()
        many = [asyncio.create_task(consent.ask(ASKED, "me", begin + 0.2)) for _ in range(20)]
        for result in await asyncio.gather(*many, return_exceptions=True):
            assert isinstance(result, ServerTimeout)
        leave.set()
        with pytest.raises(ConsentRefused, match="too late"):
            await consent.ask(ASKED, "me", time.monotonic() + 10)
        leave.clear()
        last = asyncio.create_task(consent.ask(ASKED, "me", time.monotonic() + 10))
        await asyncio.sleep(0)
        last.cancel()

    asyncio.run(run())
    leave.set()


def test_a_refusal_of_the_functions_own_kind_is_kept() -> None:
    def refuse(*_: object) -> None:
        raise ConsentRefused("by an exception")

    with pytest.raises(ConsentRefused, match="by an exception"):
        asyncio.run(Consent(refuse).ask(ASKED, "me", time.monotonic() + 10))

    def leave(*_: object) -> None:
        raise SystemExit

    with pytest.raises(HookFailed):
        asyncio.run(Consent(leave).ask(ASKED, "me", time.monotonic() + 10))
