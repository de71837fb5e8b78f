"""SIGSTOP of what a video needs: a pause that is survived, and a stop for ever that is noticed."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from fault_kills import in_a_step, long
from fault_requests import Known, over_grpc, over_http, over_http_stream, wrong
from fault_server import MODELS, FaultServer
from fault_threads import Later, wait_for

from consisid_runtime import Client
from consisid_runtime.errors import ServerTimeout, ServerUnreachable

_DEADLINE = 2_000_000
"""Microseconds, as KServe's `timeout`."""
_REFUSED = ("SERVER_TIMEOUT", "BUSY", "SERVER_DIED")


@contextmanager
def stopped(pid: int) -> Iterator[None]:
    """It goes on behind the block, unless it was killed in it."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def pause(server: FaultServer, name: str, seconds: float, known: Sequence[Known]) -> dict[str, Any]:
    """A process stands still: a deadline holds meanwhile, and what waited gets its own video.

    Triton server takes a model that stands still for one that died: what ran on it is told so.
    """
    asked, died = known[4], ("SERVER_DIED",) if name in MODELS[server.layout] else ()
    with stopped(server.pid(name)):
        began = time.monotonic()
        work = Later(lambda: over_http_stream(server, asked))
        time.sleep(0.2)
        late = over_grpc(server, known[1].with_(timeout=_DEADLINE))
        assert late.end in _REFUSED and late.seconds < 4, late
        time.sleep(max(0.0, began + seconds - time.monotonic()))
    assert wrong(asked, work.result(), known, died) is None
    assert wrong(known[2], over_http(server, known[2]), known) is None
    assert server.complete() and server.files() == []
    return {"stopped_seconds": seconds, "deadline_answered_after_seconds": round(late.seconds, 2)}


def pause_launcher(server: FaultServer, seconds: float, known: Sequence[Known]) -> dict[str, Any]:
    """The door itself stands still: our client keeps its deadline by itself, and what was sent gets its own video."""
    with stopped(server.pid("launcher")), Client(server.grpc_url, timeout=1.5) as client:
        began = time.monotonic()
        work = Later(lambda: over_http_stream(server, known[4]))
        with pytest.raises((ServerTimeout, ServerUnreachable)):
            client.generate(known[1].image, known[1].prompt)
        told = time.monotonic() - began
        assert told < 4
        time.sleep(max(0.0, began + seconds - time.monotonic()))
    assert wrong(known[4], work.result(), known) is None
    assert wrong(known[2], over_grpc(server, known[2]), known) is None
    assert server.complete() and server.files() == []
    return {"stopped_seconds": seconds, "deadline_answered_after_seconds": round(told, 2)}


def hang(server: FaultServer, name: str, known: Sequence[Known], *, running: bool) -> dict[str, Any]:
    """A process stands still for ever, in the middle of a request or before it: the door starts the server again."""
    before = server.look()["tritonserver"]
    work = in_a_step(server, long(known)) if running else None
    with stopped(server.pid(name)):
        begin = time.monotonic()
        late = over_http(server, known[1].with_(timeout=_DEADLINE))
        assert late.end in _REFUSED and late.seconds < 4, late
        if work is not None:
            assert work.result().end == "SERVER_DIED", work.result()
        answer = over_grpc(server, known[2])
        assert wrong(known[2], answer, known) is None
        served = time.monotonic() - begin
        assert server.look()["tritonserver"] != before
    wait_for(lambda: server.complete() and server.ready(), 10, "every process is there again")
    assert server.files() == []
    return {"deadline_answered_after_seconds": round(late.seconds, 2), "next_video_after_seconds": round(served, 2)}
