"""kill -9 of everything that runs while a video is made."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fault_requests import Known, over_grpc, over_grpc_stream, over_http, over_http_stream, wrong
from fault_server import FaultServer
from fault_threads import Later, wait_for

STEPS = 900
"""Of a video that takes minutes."""
_CLIENT = """
import sys
from consisid_runtime import Client, Options
with Client(sys.argv[1], timeout=600) as client:
    for event in client.stream(open(sys.argv[2], "rb").read(), "a man", Options(steps=900, frames=9)):
        print(event.stage, flush=True)
"""


def long(known: Sequence[Known]) -> Known:
    return known[0].with_(steps=STEPS)


def in_a_step(server: FaultServer, asked: Known, *, stream: Any = over_grpc_stream) -> Later:
    """A request whose denoising has begun."""
    began: list[str] = []
    work = Later(lambda: stream(server, asked, listen=lambda event: began.append(event["stage"])))
    wait_for(lambda: "denoise" in began or work.done(), 60, "the denoising begins")
    assert not work.done(), work.result()
    return work


class Left(Exception):
    """A caller ends its call."""


def leave_in_a_step(server: FaultServer, known: Sequence[Known]) -> None:
    """A caller leaves once the denoising has begun."""

    def leave(event: dict[str, Any]) -> None:
        if event["stage"] == "denoise":
            raise Left

    with pytest.raises(Left):
        over_grpc_stream(server, long(known), listen=leave)


def kill_in_a_step(server: FaultServer, name: str, known: Sequence[Known]) -> dict[str, Any]:
    """Kill a process that is no launcher: what runs is told so, what waits gets its video, all processes come back."""
    running = in_a_step(server, long(known), stream=over_http_stream if name == "text" else over_grpc_stream)
    waiting = [
        (known[1], Later(lambda: over_grpc(server, known[1]))),
        (known[2], Later(lambda: over_http(server, known[2]))),
    ]
    begin = time.monotonic()
    os.kill(server.pid(name), signal.SIGKILL)
    died = running.result()
    told = time.monotonic() - begin
    assert (died.end, told < 5) == ("SERVER_DIED", True), (died, told)
    found = [wrong(asked, work.result(), known) for asked, work in waiting]
    assert found == [None, None]
    served = time.monotonic() - begin
    wait_for(lambda: server.complete() and server.ready(), 10, "every process is there again")
    assert server.files() == []
    return {"told_after_seconds": round(told, 2), "waiting_served_after_seconds": round(served, 2)}


def kill_launcher(server: FaultServer, known: Sequence[Known]) -> dict[str, Any]:
    """Kill the door's process: who waits hears it, and nothing stays behind."""
    running, waiting = in_a_step(server, long(known)), Later(lambda: over_http(server, known[1]))
    time.sleep(0.2)
    begin = time.monotonic()
    os.kill(server.pid("launcher"), signal.SIGKILL)
    ends = [work.result().end for work in (running, waiting)]
    assert ends[0].startswith("gRPC UNAVAILABLE") and ends[1].startswith("HTTP "), ends
    assert server.process is not None and server.process.wait(10) == -signal.SIGKILL
    assert server.left() == []
    return {"all_ended_after_seconds": round(time.monotonic() - begin, 2)}


def kill_client(server: FaultServer, known: Sequence[Known], image: Path, scheme: str) -> dict[str, Any]:
    """Kill a caller: the device is free within a step, and the next one gets its video."""
    image.write_bytes(known[0].image)
    before = server.outcomes()
    url = server.grpc_url if scheme == "grpc" else server.http_url
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    command = [sys.executable, "-c", _CLIENT, url, str(image)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as client:
        assert client.stdout is not None
        while client.stdout.readline() != "denoise\n":
            assert client.poll() is None
        client.kill()
        begin = time.monotonic()
        answer = over_grpc(server, known[1])
    assert wrong(known[1], answer, known) is None
    assert server.outcomes() - before == {"CANCELLED": 1, "OK": 1}
    assert server.files() == [] and server.complete()
    freed = time.monotonic() - begin
    assert freed < 15
    return {"next_video_after_seconds": round(freed, 2)}
