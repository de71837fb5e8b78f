"""`AsyncClient` in event loops, tasks and processes, and what cancelling it does at the server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest
from test_cancel import outcomes

from consisid_runtime import AsyncClient, Client
from consisid_runtime.door.door import Door
from consisid_runtime.errors import Busy, ClientClosed, NoFace, ServerTimeout, ServerUnreachable

SCHEMES = ("grpc", "http")


def url_of(door: Door, scheme: str) -> str:
    return door.grpc_url if scheme == "grpc" else door.http_url


@pytest.mark.server
@pytest.mark.parametrize("scheme", SCHEMES)
def test_both_clients_answer_alike(tiny_door: Door, scheme: str) -> None:
    async def ask(client: AsyncClient, prompt: str) -> Any:
        return await client.generate(b"photo", prompt, raw_frames=True)

    async def main() -> Any:
        async with AsyncClient(url_of(tiny_door, scheme), timeout=30) as client:
            with pytest.raises(NoFace, match="no face in the 512×512 image"):
                await ask(client, "no face")
            return await ask(client, "a man")

    got = asyncio.run(main())
    with Client(url_of(tiny_door, scheme), timeout=30) as client:
        wanted = client.generate(b"photo", "a man", raw_frames=True)
    assert (got.mp4, got.info, got.fps) == (wanted.mp4, wanted.info, wanted.fps)
    assert got.frames.shape == wanted.frames.shape == (49, 480, 720, 3)


@pytest.mark.server
@pytest.mark.parametrize("how", ["task", "timeout", "close"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_cancelled_call_is_cancelled_at_the_server(tiny_door: Door, scheme: str, how: str) -> None:
    before = outcomes(tiny_door).get("CANCELLED", 0)

    async def main() -> float:
        client = AsyncClient(url_of(tiny_door, scheme), timeout=60)
        call = asyncio.create_task(client.generate(b"photo", "sleep 30"))
        await asyncio.sleep(0.4)
        if how == "task":
            call.cancel()
        elif how == "close":
            await client.close()
        with pytest.raises((asyncio.CancelledError, TimeoutError, ClientClosed)) as ended:
            await (asyncio.wait_for(call, 0.1) if how == "timeout" else call)
        assert isinstance(ended.value, ClientClosed) == (how == "close")
        begin = time.monotonic()
        assert (await AsyncClient(url_of(tiny_door, scheme)).generate(b"photo", "a man")).mp4 == b"photo"
        return time.monotonic() - begin

    assert asyncio.run(main()) < 2
    assert outcomes(tiny_door)["CANCELLED"] == before + 1


@pytest.mark.parametrize("scheme", SCHEMES)
def test_one_client_in_several_event_loops(stand_in: Callable[..., Any], unused_port: int, scheme: str) -> None:
    stand_in(scheme, unused_port)
    client = AsyncClient(f"{scheme}://127.0.0.1:{unused_port}", timeout=20)
    found: list[bytes] = []

    async def main() -> None:
        for video in await asyncio.gather(*[client.generate(b"photo", "a man") for _ in range(4)]):
            found.append(video.mp4)

    threads = [threading.Thread(target=lambda: asyncio.run(main())) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    asyncio.run(main())
    assert found == [b"photo"] * 16


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_event_loop_is_never_held(peer: Callable[..., int], scheme: str) -> None:
    """Not by a large body, a peer that reads nothing, or what follows a deadline."""

    async def main() -> float:
        longest = 0.0

        async def watch() -> None:
            nonlocal longest
            while True:
                begin = time.monotonic()
                await asyncio.sleep(0.01)
                longest = max(longest, time.monotonic() - begin)

        watching = asyncio.create_task(watch())
        client = AsyncClient(f"{scheme}://127.0.0.1:{peer('read_nothing')}", timeout=1)
        with pytest.raises(ServerTimeout):
            await client.generate(bytes(16 * 2**20), "a man")
        watching.cancel()
        return longest

    assert asyncio.run(main()) < 0.4


@pytest.mark.parametrize("scheme", SCHEMES)
def test_close_ends_the_calls_of_other_event_loops(peer: Callable[..., int], scheme: str) -> None:
    client = AsyncClient(f"{scheme}://127.0.0.1:{peer('never_answer')}", timeout=30)
    errors: list[BaseException] = []

    async def call() -> None:
        try:
            await client.generate(b"photo", "a man")
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=lambda: asyncio.run(call()))
    thread.start()
    time.sleep(0.3)
    asyncio.run(client.close())
    thread.join(5)
    assert [type(error) for error in errors] == [ClientClosed]

    async def late() -> None:
        async with client:
            await client.ready()

    with pytest.raises(ClientClosed, match="closed before this call"):
        asyncio.run(late())


def test_closing_does_not_hide_that_the_caller_was_cancelled(peer: Callable[..., int]) -> None:
    async def main() -> None:
        client = AsyncClient(f"http://127.0.0.1:{peer('never_answer')}", timeout=30)
        call = asyncio.create_task(client.generate(b"photo", "a man"))
        await asyncio.sleep(0.1)
        call.cancel()
        await client.close()
        with pytest.raises(asyncio.CancelledError):
            await call

    asyncio.run(main())


FORK = """
import asyncio, os, sys
from consisid_runtime import AsyncClient
from consisid_runtime.errors import ConsisIDError

url, when = sys.argv[1:]
client = AsyncClient(url, timeout=5)

def ask(client):
    try:
        return asyncio.run(client.generate(b"photo", "a man")).mp4
    except ConsisIDError as error:
        return error.code

if when == "used":
    assert ask(client) == b"photo"
pid = os.fork()
if pid == 0:
    print(ask(client), ask(AsyncClient(url, timeout=5)), flush=True)
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("parent", ask(client))
"""


@pytest.mark.parametrize("when", ["unused", "used"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_fork(stand_in: Callable[..., Any], unused_port: int, scheme: str, when: str) -> None:
    stand_in(scheme, unused_port)
    done = subprocess.run(
        [sys.executable, "-c", FORK, f"{scheme}://127.0.0.1:{unused_port}", when],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    refused = (scheme, when) == ("grpc", "used")
    child = "FORKED_PROCESS FORKED_PROCESS" if refused else "b'photo' b'photo'"
    assert done.stdout.splitlines() == [child, "parent b'photo'"], done.stderr


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_request_that_was_sent_is_never_sent_again(
    peer: Callable[..., int], stand_in: Callable[..., Any], unused_port: int, scheme: str
) -> None:
    """A connection that is lost after the request: the server may have begun."""
    stand_in(scheme, unused_port)
    sent: list[int] = []

    def forward(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := source.recv(2**16):
                target.sendall(piece)

    def lose(connection: socket.socket) -> None:
        with socket.create_connection(("127.0.0.1", unused_port)) as server:
            threading.Thread(target=forward, args=(server, connection), daemon=True).start()
            taken = 0
            while taken < 100_000 and (piece := connection.recv(2**16)):
                taken += len(piece)
                server.sendall(piece)
            sent.append(taken)
            server.shutdown(socket.SHUT_RDWR)

    with pytest.raises(ServerUnreachable) as caught:
        Client(f"{scheme}://127.0.0.1:{peer(lose)}", timeout=5).generate(bytes(2**20), "a man")
    assert caught.value.begun and len(sent) == 1


def test_the_server_is_told_of_the_deadline(peer: Callable[..., int]) -> None:
    heads: list[bytes] = []

    def take(connection: Any) -> None:
        heads.append(connection.recv(2**16))

    with pytest.raises(ServerUnreachable):
        Client(f"http://127.0.0.1:{peer(take)}", timeout=2.5).generate(b"photo", "a man")
    sent = json.loads(heads[0].partition(b"\r\n\r\n")[2].removesuffix(b"photo"))
    assert sent["parameters"] == {"timeout": 2_500_000}


@pytest.mark.server
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_busy_server_says_when_to_come_back(tiny_door: Door, scheme: str) -> None:
    async def main() -> list[Any]:
        async with AsyncClient(url_of(tiny_door, scheme), timeout=20) as client:
            calls = [client.generate(b"photo", "sleep 0.1") for _ in range(16)]
            return await asyncio.gather(*calls, return_exceptions=True)

    found = asyncio.run(main())
    busy = [error for error in found if isinstance(error, Busy)]
    assert busy and all(error.retry_after is not None and error.retry_after >= 1 for error in busy)
    assert len([video for video in found if not isinstance(video, BaseException)]) == 16 - len(busy)
