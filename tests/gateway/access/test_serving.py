"""On a port: what is too large, too slow or too much is refused, and a stop ends what would go on."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from fastapi import FastAPI, Request
from starlette.responses import StreamingResponse

from consisid_gateway.api.serving import serving
from consisid_runtime.door.access import Access
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import ConsisIDError

GET = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


def run(work: Callable[[int], Awaitable[Any]], **limits: Any) -> Any:
    """What `work` returns, with the port that an application listens on."""
    app = FastAPI()
    app.state.bodies = 0

    @app.get("/healthz")
    async def health() -> dict[str, bool]:
        return {"alive": True}

    @app.post("/v1/videos")
    async def create(request: Request) -> int:
        return len(await request.body())

    @app.get("/v1/videos/1/events")
    async def events() -> StreamingResponse:
        async def told() -> Any:
            while True:
                yield b"data: x\n\n"
                await asyncio.sleep(60)

        return StreamingResponse(told(), media_type="text/event-stream")

    def told(error: ConsisIDError) -> bytes:
        return json.dumps({"code": error.code}).encode()

    async def serve() -> Any:
        bounds = Limits(**({"grace": 10.0} | limits))
        async with serving(
            app, app, address="127.0.0.1", port=0, access=Access(), limits=bounds, told=told
        ) as listener:
            return await work(listener.port)

    return asyncio.run(asyncio.wait_for(serve(), 20))


async def talk(port: int, *pieces: bytes, pause: float = 0.0) -> bytes:
    """Everything that is answered until the connection is closed; pieces are sent until an answer begins."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    answer = bytearray()

    async def listen() -> None:
        with suppress(ConnectionError):  # the last piece came after the end
            while piece := await reader.read(65536):
                answer.extend(piece)

    listening = asyncio.create_task(listen())
    for piece in pieces:
        with suppress(ConnectionError):
            writer.write(piece)
            await writer.drain()
        await asyncio.wait({listening}, timeout=pause)
        if answer or listening.done():
            break
    await listening
    writer.close()
    return bytes(answer)


def test_a_head_that_is_too_large_or_too_slow() -> None:
    async def work(port: int) -> tuple[bytes, bytes, float]:
        large = await talk(port, GET[:-2] + b"X: " + b"a" * 40_000 + b"\r\n\r\n")
        began = time.monotonic()
        slow = await talk(port, *[bytes([byte]) for byte in GET], pause=0.1)
        return large, slow, time.monotonic() - began

    large, slow, seconds = run(work, head_seconds=0.3)
    assert large.startswith(b"HTTP/1.1 431 ") and large.endswith(b'{"code": "REQUEST_TOO_LARGE"}')
    assert slow.startswith(b"HTTP/1.1 408 ") and seconds < 3


def test_a_body_that_is_too_slow() -> None:
    async def work(port: int) -> bytes:
        head = b"POST /v1/videos HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n"
        return await talk(port, head, *[b"a"] * 60, pause=0.05)

    assert run(work, body_seconds=0.3).startswith(b"HTTP/1.1 408 ")


def test_idle_connections_make_room_and_health_is_answered() -> None:
    async def work(port: int) -> tuple[bytes, bytes]:
        idle = [await asyncio.open_connection("127.0.0.1", port) for _ in range(12)]
        healthy = await talk(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        busy = []
        for _ in range(12):  # streams hold their places
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/videos/1/events HTTP/1.1\r\nHost: x\r\n\r\n")
            busy.append((await reader.readline(), writer))
        still = await talk(port, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
        for _, writer in [*idle, *busy]:
            writer.close()
        lines = {line.split()[1] for line, _ in busy}
        assert lines == {b"200", b"503"}
        return healthy, still

    healthy, still = run(work, connections=8)
    assert healthy.startswith(b"HTTP/1.1 200 ") and still.startswith(b"HTTP/1.1 200 ")


def test_a_stop_ends_streams_of_events_within_seconds() -> None:
    ends: list[asyncio.Task[bytes]] = []

    async def work(port: int) -> float:
        begun, request = asyncio.Event(), b"GET /v1/videos/1/events HTTP/1.1\r\nHost: x\r\n\r\n"

        async def listen() -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(request)
            await reader.readuntil(b"data: x\n\n")
            begun.set()
            try:
                return await reader.read()
            finally:
                writer.close()

        ends.append(asyncio.create_task(listen()))
        await begun.wait()
        return time.monotonic()

    assert time.monotonic() - run(work) < 3
    assert ends[0].result().strip() == b"", "cut off"
