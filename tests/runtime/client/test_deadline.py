"""A timeout is a deadline for the whole call: over both transports and in the command, whatever the peer does."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime import Client
from consisid_runtime.errors import ServerError, ServerTimeout, ServerUnreachable

Start = Callable[[str], int]

SCHEMES = ("grpc", "http")
HOLDING = (
    "never_answer", "trickle", "trickle_the_body", "trickle_http2", "continue_for_ever", "read_nothing", "answer_late",
)  # fmt: skip
"""Peers that keep a connection open."""
FAILING = ("half_open", "reset", "garbage")
LARGE = bytes(16 * 2**20)
"""More than the buffers of a connection hold."""


def outcome(call: Callable[[], object]) -> tuple[Exception, float]:
    started = time.monotonic()
    with pytest.raises(ServerError) as caught:
        call()
    return caught.value, time.monotonic() - started


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_peer_within_the_timeout(peer: Start, scheme: str) -> None:
    """All at once: each waits for its own timeout."""
    outcomes: dict[str, tuple[Exception, float]] = {}

    def ask(behaviour: str, image: bytes) -> None:
        with Client(f"{scheme}://127.0.0.1:{peer(behaviour)}", timeout=1) as client:
            outcomes[behaviour + ("" if image == b"x" else "_large")] = outcome(lambda: client.generate(image, "a man"))

    jobs = [(name, b"x") for name in (*HOLDING, *FAILING)] + [("read_nothing", LARGE)]
    threads = [threading.Thread(target=ask, args=job) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(outcomes) == len(jobs)
    assert {name: seconds for name, (_, seconds) in outcomes.items() if seconds > 1.5} == {}
    # Over gRPC a peer that does not speak HTTP/2 is one that cannot be connected to.
    unconnectable = {"trickle", "trickle_the_body", "continue_for_ever"} if scheme == "grpc" else {"trickle_http2"}
    for name, (error, _) in outcomes.items():
        if name.removesuffix("_large") in set(HOLDING) - unconnectable:
            assert type(error) is ServerTimeout, (name, error)
            assert "did not answer within 1 s" in str(error)
        assert f"{scheme}://127.0.0.1:" in str(error)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("behaviour", ["never_answer", "trickle"])
def test_ready_keeps_to_the_timeout(peer: Start, scheme: str, behaviour: str) -> None:
    with Client(f"{scheme}://127.0.0.1:{peer(behaviour)}", timeout=0.3) as client:
        started = time.monotonic()
        assert not client.ready()
        assert time.monotonic() - started < 0.8


def test_resolving_a_name_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    resolve = socket.getaddrinfo

    def slow(host: Any, *arguments: Any, **named: Any) -> Any:
        if host == "slow.example" and named.get("flags") != socket.AI_NUMERICHOST:
            time.sleep(2)
        return resolve(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    monkeypatch.setenv("no_proxy", "*")
    error, seconds = outcome(lambda: Client("http://slow.example:8000", timeout=0.3).generate(b"x", "a man"))
    assert isinstance(error, ServerTimeout)
    assert seconds < 0.8


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_command(peer: Start, tmp_path: Path, scheme: str) -> None:
    (tmp_path / "me.jpg").write_bytes(b"photo")
    url = f"{scheme}://127.0.0.1:{peer('trickle_the_body' if scheme == 'http' else 'trickle_http2')}"
    arguments = ["request", "--json", "--image", "me.jpg", "--prompt", "a man", "--out", "out.mp4", "--url", url]

    def run(timeout: str) -> tuple[dict[str, Any], int, float]:
        code = "import sys; from consisid_runtime.cli.main import main; sys.argv = ['consisid', *sys.argv[1:]]; main()"
        started = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments, "--timeout", timeout], cwd=tmp_path, capture_output=True, text=True
        )
        return json.loads(done.stdout)["error"], done.returncode, time.monotonic() - started

    short, status, least = run("0.01")
    assert (short["code"], status) == ("SERVER_TIMEOUT", 6)
    error, status, seconds = run("1")
    assert (error["code"], status) == ("SERVER_TIMEOUT", 6)
    assert seconds - least < 1.5
    assert not (tmp_path / "out.mp4").exists()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_call_waits_for_a_server_that_starts(scheme: str, unused_port: int, stand_in: Callable[..., Any]) -> None:
    with Client(f"{scheme}://127.0.0.1:{unused_port}", timeout=20) as client:
        starting = threading.Timer(1, stand_in, (scheme, unused_port))
        starting.start()
        assert client.generate(b"photo", "a man").mp4 == b"photo"
        starting.join()


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_client_recovers_after_an_outage(scheme: str, unused_port: int, stand_in: Callable[..., Any]) -> None:
    url = f"{scheme}://127.0.0.1:{unused_port}"
    with Client(url, timeout=0.3) as impatient, Client(url, timeout=1) as client:
        for _ in range(3):
            assert isinstance(outcome(lambda: impatient.generate(b"x", "a man"))[0], ServerUnreachable)
            assert not impatient.ready()
        stop = stand_in(scheme, unused_port)
        assert client.ready()
        assert impatient.generate(b"photo", "a man").mp4 == b"photo"
        stop()
        assert isinstance(outcome(lambda: client.generate(b"x", "a man"))[0], ServerUnreachable)
        stand_in(scheme, unused_port)
        assert impatient.generate(b"photo", "a man").mp4 == b"photo"
        assert client.generate(b"photo", "a man").mp4 == b"photo"
