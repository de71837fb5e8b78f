"""A little of every kind of fault at one real server; `test_proof.py` has all of them.

The scenarios check themselves: each request is answered once, by the right video or a typed error, and nothing is left.
`test_instruments.py` shows that they find planted faults.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from fault_connections import crowd, never_read, stay_silent
from fault_kills import kill_client, kill_in_a_step
from fault_mixture import send
from fault_requests import Known
from fault_server import FaultServer
from fault_stops import hang, pause, pause_launcher

pytestmark = pytest.mark.server


def test_a_model_killed_in_a_step(server: FaultServer, known: list[Known]) -> None:
    kill_in_a_step(server, "consisid_stream", known)


def test_a_client_killed_in_a_step(server: FaultServer, known: list[Known], tmp_path: Path) -> None:
    kill_client(server, known, tmp_path / "portrait", "grpc")


def test_triton_server_that_stands_still_for_a_while(server: FaultServer, known: list[Known]) -> None:
    pause(server, "tritonserver", 2.2, known)


def test_a_door_that_stands_still_for_a_while(server: FaultServer, known: list[Known]) -> None:
    pause_launcher(server, 2.0, known)


def test_a_model_that_stands_still_for_ever(server: FaultServer, known: list[Known]) -> None:
    hang(server, "consisid_stream", known, running=True)


def test_connections_that_do_not_go_on(server: FaultServer, known: list[Known]) -> None:
    stay_silent(server, 4, 10, known, ["http half a head", "http half a body", "grpc half a preface"])


def test_an_answer_that_nobody_reads(server: FaultServer, known: list[Known]) -> None:
    never_read(server, 10, known)


def test_more_clients_than_places(server: FaultServer, known: list[Known]) -> None:
    crowd(server, 24, 8, known, soon=1.0)


def test_good_and_bad_requests(server: FaultServer, known: list[Known]) -> None:
    send(server, range(60), known, "mixture")
