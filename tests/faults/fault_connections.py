"""Callers who open a connection and do not go on, and more callers than the queue has places."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from door_requests import head, place
from fault_requests import VIDEO, WAYS, Answer, Known, over_http, wrong
from fault_server import FaultServer
from fault_threads import Later, wait_for

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How a gRPC client begins, with empty settings."""

HALF_OPEN = {
    "http nothing": ("http", b""),
    "http half a head": ("http", b"POST /v2/models/consisid/infer HTTP/1.1\r\nHost: x\r\nContent-"),
    "http a head alone": ("http", head(1_000_000)),
    "http half a body": ("http", head(1_000_000) + bytes(500_000)),
    "grpc nothing": ("grpc", b""),
    "grpc half a preface": ("grpc", PREFACE[:10]),
    "grpc settings alone": ("grpc", PREFACE),
}
"""Name → protocol, and all that is ever sent."""


@contextlib.contextmanager
def half_open(server: FaultServer, each: int, kinds: Iterable[str]) -> Iterator[dict[str, list[socket.socket]]]:
    """So many connections of each kind."""
    with contextlib.ExitStack() as stack:
        found: dict[str, list[socket.socket]] = {}
        for name in kinds:
            scheme, sent = HALF_OPEN[name]
            for _ in range(each):
                address = place(server.http_url if scheme == "http" else server.grpc_url)
                opened = stack.enter_context(socket.create_connection(address, timeout=30))
                opened.sendall(sent)
                found.setdefault(name, []).append(opened)
        yield found


def stay_silent(
    server: FaultServer, each: int, seconds: float, known: Sequence[Known], kinds: Iterable[str] = HALF_OPEN
) -> dict[str, Any]:
    """Others get their videos meanwhile, every connection is closed in time, and none stays open in the door."""
    wait_for(lambda: server.complete() and server.ready(), 30, "every process is there")
    before = server.descriptors()["launcher"]
    with half_open(server, each, kinds) as opened:
        begin = time.monotonic()
        for asked, ask in zip(known, WAYS.values(), strict=False):
            assert wrong(asked, ask(server, asked), known) is None
        closed = {}
        for name, connections in opened.items():
            for connection in connections:
                connection.settimeout(max(0.1, begin + seconds - time.monotonic()))
                drain(connection)
            closed[name] = round(time.monotonic() - begin, 1)
    wait_for(lambda: server.descriptors()["launcher"] <= before + 2, 10, "the door has closed its side")
    return {"of_each_kind": each, "closed_after_seconds": closed}


def drain(connection: socket.socket) -> None:
    """Read until the peer closes. Raises `TimeoutError` where it does not in time."""
    with contextlib.suppress(ConnectionResetError):
        while connection.recv(2**16):
            pass


def never_read(server: FaultServer, seconds: float, known: Sequence[Known]) -> dict[str, Any]:
    """A caller asks for 60 MB of numbers and takes none: the door gives up its answer, and others get theirs."""
    asked = known[0].with_(raw_frames=True)
    inputs = [
        {"name": "image", "datatype": "UINT8", "shape": [len(asked.image)], "data": list(asked.image)},
        {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [asked.prompt]},
    ]
    body = json.dumps({"inputs": inputs, "outputs": [{"name": "frames"}], "parameters": asked.parameters}).encode()
    before = server.descriptors()["launcher"]
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(place(server.http_url))
        connection.sendall(head(len(body)) + body)
        begin = time.monotonic()
        assert wrong(known[1], over_http(server, known[1]), known) is None
        wait_for(lambda: server.descriptors()["launcher"] <= before + 1, seconds, "the answer is given up")
    return {"given_up_after_seconds": round(time.monotonic() - begin, 1)}


def crowd(server: FaultServer, clients: int, places: int, known: Sequence[Known], soon: float) -> dict[str, Any]:
    """All at once: each gets its own video, or hears in `soon` seconds that the server is busy, until when."""
    ways = list(WAYS.values())
    asked = [known[number % len(known)] for number in range(clients)]
    works = [Later(lambda n=number: ways[n % 4](server, asked[n])) for number in range(clients)]  # type: ignore[misc]
    answers: list[Answer] = [work.result() for work in works]
    found = [wrong(one, answer, known, ("BUSY",)) for one, answer in zip(asked, answers, strict=True)]
    assert not any(found), [text for text in found if text]
    ends = Counter(answer.end for answer in answers)
    busy = sorted(answer.seconds for answer in answers if answer.end == "BUSY")
    assert ends[VIDEO] >= places and ends[VIDEO] + ends["BUSY"] == clients
    assert all(answer.retry and answer.retry >= 1 for answer in answers if answer.end == "BUSY")
    assert busy[-1] < soon
    return {
        "clients": clients,
        "videos": ends[VIDEO],
        "busy": ends["BUSY"],
        "busy_after_seconds_median": round(busy[len(busy) // 2], 3),
        "busy_after_seconds_longest": round(busy[-1], 3),
    }
