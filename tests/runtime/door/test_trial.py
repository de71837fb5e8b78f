"""A trial through the door: for probes, which wait for nobody and are no requests of callers."""

from __future__ import annotations

import os
import signal
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from door_requests import processes

from consisid_runtime.client.client import Client
from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import Busy, RequestCancelled, ServerUnreachable
from consisid_runtime.serve.tritonserver import TritonServer

pytestmark = pytest.mark.server


def metrics(door: Door) -> list[str]:
    with urllib.request.urlopen(door.metrics_url, timeout=10) as answer:
        return list(answer.read().decode().splitlines())


def counted(door: Door) -> list[str]:
    """What the metrics say of requests."""
    lines = metrics(door)
    names = ("consisid_requests_total", "consisid_request_seconds", "consisid_queue_seconds", "consisid_stage")
    return [line for line in lines if line.startswith((*names, "consisid_first_event")) and "_created" not in line]


@pytest.fixture(params=["grpc_url", "http_url"])
def client(request: pytest.FixtureRequest, tiny_door: Door) -> Iterator[Client]:
    with Client(getattr(tiny_door, request.param), timeout=20) as opened:
        yield opened


def trials(door: Door, outcome: str) -> float:
    """How many ended so."""
    start = f'consisid_asides_total{{kind="trial",outcome="{outcome}"}} '
    return sum(float(line.removeprefix(start)) for line in metrics(door) if line.startswith(start))


def test_it_is_answered_and_counts_as_no_request(client: Client, tiny_door: Door) -> None:
    before, ended = counted(tiny_door), trials(tiny_door, "OK")
    told = client.trial()
    assert told == {"bundle": "tiny", "seconds": {"face": 0.25}}
    assert counted(tiny_door) == before
    assert trials(tiny_door, "OK") == ended + 1


@pytest.mark.parametrize("prompt", ["sleep 20", "hang 1.5"])
def test_it_does_not_wait_for_a_video(client: Client, tiny_door: Door, prompt: str) -> None:
    with client.stream(b"abc", prompt) as stream:
        ending = threading.Thread(target=lambda: list(stream), daemon=True)
        if prompt.startswith("sleep"):
            while next(stream).stage != "denoise":  # type: ignore[union-attr]
                pass
        else:
            next(stream)
            ending.start()
        begin, refused = time.monotonic(), trials(tiny_door, Busy.code)
        with pytest.raises(Busy, match="does not wait") as caught:
            client.trial()
        assert time.monotonic() - begin < 1
        assert trials(tiny_door, Busy.code) == refused + 1
        assert caught.value.retry_after is not None and caught.value.retry_after >= 1
        if prompt.startswith("hang"):
            ending.join(20)
        else:
            stream.cancel()
            with pytest.raises(RequestCancelled):
                list(stream)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            client.trial()
            return
        except Busy:
            time.sleep(0.05)
    raise AssertionError("it is free now")


def test_it_does_not_wait_for_a_server_that_is_started_again(tiny_repository: Path) -> None:
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, limits=Limits(grace=0.5)) as door, Client(door.grpc_url, timeout=20) as client:
        os.kill(max(processes(server, "tritonserver")), signal.SIGKILL)
        begin = time.monotonic()
        with pytest.raises(ServerUnreachable, match="not begun"):
            client.trial()
        assert time.monotonic() - begin < 3
