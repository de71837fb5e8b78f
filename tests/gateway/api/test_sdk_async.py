"""The official SDK, unmodified, in its asynchronous form."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")


def run(gateway: Any, use: Callable[[openai.AsyncOpenAI], Awaitable[Any]]) -> Any:
    async def inside() -> Any:
        async with openai.AsyncOpenAI(base_url=f"{gateway.url}/v1", api_key="any", max_retries=0) as client:
            return await use(client)

    gateway.tenant[0] = "async"
    try:
        return asyncio.run(inside())
    finally:
        gateway.tenant[0] = "local"


def made(gateway: Any, sdk: openai.AsyncOpenAI, **more: Any) -> Awaitable[Any]:
    return sdk.videos.create(prompt="a person waves", input_reference=("p.jpg", gateway.portrait), **more)


def test_many_are_made_and_polled_at_once(gateway: Any) -> None:
    async def use(sdk: openai.AsyncOpenAI) -> list[Any]:
        one = {"prompt": "a person waves", "input_reference": ("p.jpg", gateway.portrait), "poll_interval_ms": 20}
        return await asyncio.gather(*(sdk.videos.create_and_poll(**one, extra_body={"seed": n}) for n in range(5)))

    with gateway.worker():
        videos = run(gateway, use)
    assert {video.status for video in videos} == {"completed"} and len({video.id for video in videos}) == 5


def test_create_retrieve_remix_list_delete(gateway: Any) -> None:
    async def use(sdk: openai.AsyncOpenAI) -> None:
        video = await made(gateway, sdk, seconds="2", extra_body={"seed": 3})
        assert (await sdk.videos.retrieve(video.id)).seconds == "2"
        other = await sdk.videos.remix(video.id, prompt="a person sings")
        assert other.options == {"seed": 3, "frames": 17}
        listed = [each.id async for each in sdk.videos.list(limit=1)]
        assert listed[:2] == [other.id, video.id]
        assert (await sdk.videos.delete(video.id)).deleted
        with pytest.raises(openai.NotFoundError):
            await sdk.videos.retrieve(video.id)

    run(gateway, use)


def test_download(gateway: Any) -> None:
    async def use(sdk: openai.AsyncOpenAI) -> bytes:
        video = await made(gateway, sdk)
        await asyncio.to_thread(gateway.finish, video.id)
        return (await sdk.videos.download_content(video.id)).content

    assert run(gateway, use) == gateway.video


def test_a_failed_job_is_an_answer(gateway: Any) -> None:
    async def use(sdk: openai.AsyncOpenAI) -> Any:
        return await sdk.videos.create_and_poll(
            prompt="a person waves", input_reference=("p.jpg", gateway.portrait), poll_interval_ms=20
        )

    with gateway.worker(refuse="NOT_FINITE"):
        video = run(gateway, use)
    assert (video.status, video.error.code) == ("failed", "NOT_FINITE")


def test_characters(gateway: Any) -> None:
    async def use(sdk: openai.AsyncOpenAI) -> Any:
        character = await sdk.videos.create_character(name="Ada", video=("p.jpg", gateway.portrait))
        return character, await sdk.videos.get_character(character.id)

    with gateway.worker():
        character, again = run(gateway, use)
    assert character.id == again.id and again.status == "ready"
