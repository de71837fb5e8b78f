"""Closing a client, forking with one, and the addresses it can be made of."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from consisid_runtime import Client
from consisid_runtime.client.connect import connect
from consisid_runtime.client.threads import wait_for
from consisid_runtime.errors import ClientClosed, InvalidOption, ServerUnreachable

SCHEMES = ("grpc", "http")
Start = Callable[[str], int]


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("used", [False, True])
def test_use_after_close(stand_in: Callable[..., Any], unused_port: int, scheme: str, used: bool) -> None:
    stand_in(scheme, unused_port)
    with Client(f"{scheme}://127.0.0.1:{unused_port}", timeout=10) as client:
        if used:
            client.generate(b"photo", "a man")
    client.close()
    for call in (client.ready, lambda: client.generate(b"photo", "a man")):
        with pytest.raises(ClientClosed, match="closed before this call"):
            call()


@pytest.mark.parametrize("behaviour", ["never_answer", "trickle", "trickle_http2", "refused"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_close_ends_the_calls_of_other_threads(peer: Start, unused_port: int, scheme: str, behaviour: str) -> None:
    port = unused_port if behaviour == "refused" else peer(behaviour)
    client = Client(f"{scheme}://127.0.0.1:{port}", timeout=30)
    errors: list[BaseException] = []

    def call(method: Callable[[], object]) -> None:
        try:
            method()
        except BaseException as error:
            errors.append(error)

    waiting = [threading.Thread(target=call, args=(lambda: client.generate(b"photo", "a man"),)) for _ in range(3)]
    for thread in waiting:
        thread.start()
    time.sleep(0.3)
    closed_at = time.monotonic()
    closing = [threading.Thread(target=client.close) for _ in range(3)]
    for thread in closing:
        thread.start()
    for thread in (*waiting, *closing):
        thread.join()
    assert time.monotonic() - closed_at < 1
    # A peer that speaks no HTTP may have failed a call before.
    ended = [error for error in errors if isinstance(error, ClientClosed)]
    assert len(ended) == 3 or (scheme, behaviour) == ("http", "trickle_http2")
    assert all("closed while this call waited" in str(error) for error in ended)


FORK = """
import os, sys, time
from consisid_runtime import Client
from consisid_runtime.errors import ConsisIDError

url, when = sys.argv[1:]
client = Client(url, timeout=5)
if when == "used":
    client.generate(b"photo", "a man")
pid = os.fork()
if pid == 0:
    for each in (client, Client(url, timeout=5)):
        for call in (lambda: each.generate(b"photo", "a man").mp4, each.ready):
            try:
                print(call(), flush=True)
            except ConsisIDError as error:
                print(error.code, error, flush=True)
    client.close()
    os._exit(0)
assert os.waitpid(pid, 0)[1] == 0
print("parent", client.generate(b"photo", "a man").mp4)
"""


@pytest.mark.parametrize("when", ["unused", "used"])
@pytest.mark.parametrize("scheme", SCHEMES)
def test_fork(stand_in: Callable[..., Any], unused_port: int, scheme: str, when: str) -> None:
    stand_in(scheme, unused_port)
    done = subprocess.run(
        [sys.executable, "-c", FORK, f"{scheme}://127.0.0.1:{unused_port}", when],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    *child, parent = done.stdout.splitlines()
    assert parent == "parent b'photo'", done.stderr
    if (scheme, when) == ("grpc", "used"):
        assert len(child) == 4
        assert all(line.startswith("FORKED_PROCESS gRPC was used in process") for line in child)
    else:
        assert child == ["b'photo'", "True"] * 2


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(not has_ipv6(), reason="needs IPv6 on loopback")
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("host", ["[::1]", "[0:0:0:0:0:0:0:1]"])
def test_ipv6(stand_in: Callable[..., Any], unused_port: int, scheme: str, host: str) -> None:
    stand_in(scheme, unused_port, host="::1")
    with Client(f"{scheme}://{host}:{unused_port}", timeout=10) as client:
        assert client.ready()
        assert client.generate(b"photo", "a man").mp4 == b"photo"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_unreachable_ipv6_address_is_shown_in_brackets(unused_port: int, scheme: str) -> None:
    with (
        Client(f"{scheme}://[::1]:{unused_port}", timeout=0.3) as client,
        pytest.raises(ServerUnreachable, match=rf"{scheme}://\[::1\]:{unused_port}"),
    ):
        client.generate(b"photo", "a man")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(
    "rest",
    [
        "::1:8000", "[::1]", "[::1]:0", "[::g]:80", "a..b:80", f"{'a' * 64}.example:80", "a b:80", "a%20b:80",
        "h:65536", "h:80#part", "h:80?q=1", ":secret@h:80", "h:-1", "h\x00:80",
    ],
)  # fmt: skip
def test_invalid_addresses(scheme: str, rest: str) -> None:
    with pytest.raises(InvalidOption, match="a server's URL is grpc://host:port or http://host:port"):
        connect(f"{scheme}://{rest}")


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("host", ["no-such-host.invalid", "unix", "münchen.invalid", "my_server.invalid"])
def test_names_that_do_not_resolve(monkeypatch: pytest.MonkeyPatch, scheme: str, host: str) -> None:
    monkeypatch.setenv("no_proxy", "*")
    with Client(f"{scheme}://{host}:8000", timeout=1) as client:
        started = time.monotonic()
        with pytest.raises(Exception) as caught:
            client.generate(b"photo", "a man")
    assert getattr(caught.value, "code", None) in ("SERVER_UNREACHABLE", "SERVER_TIMEOUT")
    assert time.monotonic() - started < 1.5


def test_what_grpc_says_of_other_loops_is_not_reported(caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        for name in ("PollerCompletionQueue._handle_events()", "planted()"):
            asyncio.get_running_loop().call_exception_handler({"message": f"Exception in callback {name}"})

    wait_for(work())
    assert [record.message for record in caplog.records] == ["Exception in callback planted()"]
