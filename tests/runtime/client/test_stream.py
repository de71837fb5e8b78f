"""Streams of both clients over both protocols: events, the video, and what ends one early."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from consisid_runtime import AsyncClient, Client, Video
from consisid_runtime.client.http.events import Events
from consisid_runtime.errors import (
    Busy,
    ClientClosed,
    InvalidOption,
    NoFace,
    RequestCancelled,
    ServerError,
    ServerTimeout,
    ServerUnreachable,
)
from consisid_runtime.events import QUEUE, Event

SCHEMES = ("grpc", "http")
Start = Callable[[str, list[Any]], str]

EVENTS = [Event(QUEUE, 0, 1, position=1), *(Event("denoise", step, 3, seconds_left=3.5 - step) for step in range(1, 4))]
SENT: list[Any] = [{"event": event.to_json().encode()} for event in EVENTS]
SENT[2] |= {"preview": b"\xff\xd8jpeg", "checkpoint": b"\0state"}
VIDEO = {"video": b"mp4" * 30_000, "info": b'{"seed": 7}'}


def items(url: Any, kind: type, **options: Any) -> list[Any]:
    """What a stream of a client of this kind yields."""
    if kind is Client:
        with Client(url, timeout=20) as client:
            return list(client.stream(b"photo", "a man", **options))

    async def main() -> list[Any]:
        async with AsyncClient(url, timeout=20) as client:
            return [item async for item in client.stream(b"photo", "a man", **options)]

    return asyncio.run(main())


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_events_and_then_the_video(streaming: Start, scheme: str, kind: type) -> None:
    url = streaming(scheme, [*SENT, VIDEO])
    *events, video = items(url, kind)
    assert events == EVENTS
    assert isinstance(video, Video) and (video.mp4, video.info) == (VIDEO["video"], {"seed": 7})
    *events, _ = items(url, kind, previews=True, checkpoint_seconds=1)
    assert (events[2].preview, events[2].checkpoint) == (b"\xff\xd8jpeg", b"\0state")
    assert events[1].preview is None and events[1].checkpoint is None


@pytest.mark.parametrize("scheme", SCHEMES)
def test_generate_with_progress(streaming: Start, scheme: str) -> None:
    url = streaming(scheme, [*SENT, VIDEO])
    seen: list[Event] = []
    with Client(url, timeout=20) as client:
        assert client.generate(b"photo", "a man", on_progress=seen.append).mp4 == VIDEO["video"]
        assert seen == EVENTS
        with pytest.raises(InvalidOption, match="raw_frames come neither with on_progress"):
            client.generate(b"photo", "a man", raw_frames=True, on_progress=seen.append)

    async def main() -> bytes:
        async with AsyncClient(url, timeout=20) as client:
            return (await client.generate(b"photo", "a man", on_progress=seen.append)).mp4

    assert asyncio.run(main()) == VIDEO["video"]
    assert seen == EVENTS * 2


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("how", ["cancel", "other thread", "block", "forgotten", "progress", "close"])
def test_what_ends_a_stream_ends_it_at_the_server(streaming: Start, scheme: str, how: str) -> None:
    left = threading.Event()
    client = Client(streaming(scheme, [SENT[0], left]), timeout=20)
    if how == "progress":

        def stop(event: Event) -> None:
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            client.generate(b"photo", "a man", on_progress=stop)
    elif how == "block":
        with client.stream(b"photo", "a man") as stream:
            assert next(stream) == EVENTS[0]
    else:
        stream = client.stream(b"photo", "a man")
        assert next(stream) == EVENTS[0]
        if how == "forgotten":
            del stream
        elif how == "close":
            client.close()
            with pytest.raises(ClientClosed):
                next(stream)
        else:
            timer = threading.Timer(0.1 if how == "other thread" else 0, stream.cancel)
            timer.start()
            with pytest.raises(RequestCancelled):
                next(stream)
            timer.join()
            assert list(stream) == []
    assert left.wait(5)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("how", ["cancel", "task", "block", "break", "wait_for"])
def test_the_same_asynchronously(streaming: Start, scheme: str, how: str) -> None:
    left = threading.Event()
    url = streaming(scheme, [SENT[0], left])

    async def main() -> None:
        client = AsyncClient(url, timeout=20)
        stream = client.stream(b"photo", "a man")
        if how == "break":
            async for _ in stream:
                break
            del stream
        elif how == "block":
            async with stream:
                assert await anext(stream) == EVENTS[0]
        else:
            assert await anext(stream) == EVENTS[0]
            if how == "cancel":
                stream.cancel()
                with pytest.raises(RequestCancelled):
                    await anext(stream)
            elif how == "wait_for":
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(stream), 0.1)
            else:
                task = asyncio.create_task(stream.video())
                await asyncio.sleep(0.05)
                task.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await task
        assert await asyncio.to_thread(left.wait, 5)

    asyncio.run(main())


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_stream_that_was_cancelled_before_it_began(scheme: str) -> None:
    stream = Client(f"{scheme}://127.0.0.1:9", timeout=5).stream(b"photo", "a man")
    stream.cancel()
    stream.cancel()
    with pytest.raises(RequestCancelled):
        next(stream)
    with pytest.raises(StopIteration):
        next(stream)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    ("last", "error", "message"),
    [
        (NoFace("no face in the image"), NoFace, "no face in the image"),
        ({"event": b'{"stage": 3}'}, ServerError, "an event that is none"),
        ({"info": b"{}"}, ServerError, "without the output 'video'"),
        (None, ServerError, "ended its answer without a video"),
    ],
    ids=["typed", "no event", "no video", "end"],
)
def test_a_stream_that_fails(streaming: Start, scheme: str, last: Any, error: type, message: str) -> None:
    url = streaming(scheme, [*SENT, *([] if last is None else [last])])
    for kind in (Client, AsyncClient):
        with pytest.raises(error, match=message):
            items(url, kind)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_busy_server(streaming: Start, scheme: str) -> None:
    url = streaming(scheme, [Busy("16 requests wait; try again in 7 s", 7.0)])
    with pytest.raises(Busy) as busy:
        items(url, Client)
    assert busy.value.retry_after == 7


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_timeout_is_that_of_the_whole_stream(streaming: Start, scheme: str) -> None:
    left = threading.Event()
    with Client(streaming(scheme, [*SENT, left]), timeout=0.5) as client:
        stream = client.stream(b"photo", "a man")
        for _ in SENT:
            next(stream)
        with pytest.raises(ServerTimeout, match=r"within 0\.5 s"):
            next(stream)
    assert left.wait(5)


def test_what_is_wrong_with_a_request_is_said_at_once() -> None:
    for kind in (Client, AsyncClient):
        client = kind("http://127.0.0.1:9")
        with pytest.raises(InvalidOption, match="checkpoint_seconds"):
            client.stream(b"photo", "a man", checkpoint_seconds=-1)
        with pytest.raises(InvalidOption, match="prompt"):
            client.stream(b"photo", 7)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
def test_server_sent_events_in_pieces(size: int) -> None:
    text = b": comment\n\ndata: one\n\nevent: x\r\ndata:two\r\n\r\nid: 3\ndata: a\ndata: b\n\n\n\ndata: unfinished"
    events = Events()
    pieces = [text[start : start + size] for start in range(0, len(text), size)]
    assert [data for piece in pieces for data in events.read(piece)] == [b"one", b"two", b"a\nb"]


class Ending:
    """A transport whose stream has its video, and then something before its end."""

    def __init__(self, behind: Callable[[], Any]) -> None:
        self._behind = behind
        self.ended = False

    async def stream(self, *_: Any) -> Any:
        yield {
            name: np.frombuffer(data, np.uint8) if name == "video" else np.array([data], object)
            for name, data in VIDEO.items()
        }
        await self._behind()
        self.ended = True


async def shortly() -> None:
    await asyncio.sleep(0.05)


async def never() -> None:
    await asyncio.sleep(20)


async def failing() -> None:
    raise ServerUnreachable("planted", begun=True)


@pytest.mark.parametrize("behind", [shortly, never, failing])
@pytest.mark.parametrize("kind", [Client, AsyncClient])
def test_a_stream_is_read_to_its_end_and_its_video_is_not_lost_there(kind: type, behind: Callable[[], Any]) -> None:
    """To a server, who leaves before the end has cancelled."""
    transport: Any = Ending(behind)
    began = time.monotonic()
    (video,) = items(transport, kind)
    assert video.mp4 == VIDEO["video"]
    assert transport.ended == (behind is shortly)
    assert time.monotonic() - began < 3
