"""A caller who leaves frees the device: within one look of the model that computes."""

from __future__ import annotations

import errno
import os
import socket
import time
import timeit
from pathlib import Path
from typing import Any

import grpc
import pytest
from door_requests import grpc_request, json_request, place, post, video
from tritonclient.grpc import service_pb2_grpc

from consisid_runtime.door.door import Door
from consisid_runtime.errors import InvalidOption, RequestCancelled
from consisid_runtime.serve.ticket import Look, Ticket, make_spare, take_look
from consisid_runtime.wire import TICKET, TICKETS_VARIABLE, read_options

LONG = "sleep 30"


def outcomes(door: Door) -> dict[str, float]:
    """Outcome → how many requests had it, from the metrics."""
    import urllib.request

    with urllib.request.urlopen(door.metrics_url, timeout=10) as answer:
        lines = [line for line in answer.read().decode().splitlines() if line.startswith("consisid_requests_total")]
    found: dict[str, float] = {}
    for line in lines:
        name = line.partition('outcome="')[2].partition('"')[0]
        found[name] = found.get(name, 0) + float(line.rpartition(" ")[2])
    return found


@pytest.mark.server
@pytest.mark.parametrize("how", ["http", "http half closed", "grpc", "grpc channel"])
def test_the_device_is_free_when_a_caller_has_left(tiny_door: Door, how: str) -> None:
    before = outcomes(tiny_door).get("CANCELLED", 0)
    if how.startswith("http"):
        with socket.create_connection(place(tiny_door.http_url), timeout=10) as connection:
            connection.sendall(post(json_request(LONG)))
            time.sleep(0.4)
            if how == "http half closed":
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)
    else:
        channel = grpc.insecure_channel(tiny_door.grpc_url.partition("//")[2])
        pending = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer.future(grpc_request(LONG), timeout=60)
        time.sleep(0.4)
        if how == "grpc":
            pending.cancel()
        channel.close()
    begin = time.monotonic()
    assert video(tiny_door) == b"abc"
    assert time.monotonic() - begin < 2
    assert outcomes(tiny_door)["CANCELLED"] == before + 1


@pytest.mark.server
def test_one_who_leaves_the_queue_is_never_begun(tiny_door: Door) -> None:
    with socket.create_connection(place(tiny_door.http_url), timeout=10) as first:
        first.sendall(post(json_request("sleep 1")))
        time.sleep(0.2)
        with socket.create_connection(place(tiny_door.http_url), timeout=10) as second:
            second.sendall(post(json_request(LONG)))
            time.sleep(0.2)
        begin = time.monotonic()
        assert first.recv(2**16).startswith(b"HTTP/1.1 200")
    assert video(tiny_door) == b"abc"
    assert time.monotonic() - begin < 3


def test_a_ticket_is_a_file_that_models_look_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticket = Ticket(tmp_path)
    parameters = {TICKET: ticket.name, "steps": 3}
    monkeypatch.setenv(TICKETS_VARIABLE, str(tmp_path))
    look = take_look(parameters)
    assert parameters == {"steps": 3}
    look("denoise", 1, 3)
    ticket.cancel()
    ticket.cancel()
    with pytest.raises(RequestCancelled):
        look("denoise", 2, 3)
    ticket.close()
    ticket.close()
    assert os.listdir(tmp_path) == []
    Ticket(tmp_path / "gone").cancel()


def test_models_hear_of_a_caller_who_leaves_where_no_file_can_be_created(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, **settings: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    make_spare(tmp_path)
    spare = os.listdir(tmp_path)
    monkeypatch.setattr(Path, "touch", full)
    for _ in range(2):
        tickets = [Ticket(tmp_path) for _ in range(2)]
        for ticket in tickets:
            ticket.cancel()
            with pytest.raises(RequestCancelled):
                Look(str(tmp_path / ticket.name))()
        for ticket in tickets:
            ticket.close()
            ticket.close()
        assert sorted(os.listdir(tmp_path)) == sorted(spare)


@pytest.mark.parametrize("name", ["/etc/passwd", "../x", "a" * 31, "A" * 32, "a" * 33, "", 7, None])
def test_a_name_that_no_door_gives_is_an_unknown_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: object
) -> None:
    monkeypatch.setenv(TICKETS_VARIABLE, str(tmp_path))
    parameters = {TICKET: name}
    take_look(parameters)()
    with pytest.raises(InvalidOption, match="unknown option"):
        read_options(parameters)


def test_without_a_door_there_are_no_tickets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(TICKETS_VARIABLE, raising=False)
    parameters = {TICKET: "a" * 32}
    take_look(parameters)()
    with pytest.raises(InvalidOption, match="unknown option"):
        read_options(parameters)


def test_a_look_is_quick(tmp_path: Path) -> None:
    look = Look(str(tmp_path / "none"))
    took = min(timeit.repeat(lambda: look("denoise", 1, 50), number=1000))
    assert took < 0.05, "50 µs a look: 1 ‰ of a step of 50 ms"
