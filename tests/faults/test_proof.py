"""Every kind of fault. What a trial found is in benchmarks/results/proof/faults.json, hours of traffic in soak.json."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import fault_connections
import fault_full
import fault_kills
import fault_mixture
import fault_soak
import fault_stops
import pytest
from fault_requests import Known
from fault_server import MODELS, FaultServer

pytestmark = [pytest.mark.server, pytest.mark.proof]

RUNTIME = Path(__file__).parents[2] / "runtime" / "consisid_runtime"
SOURCES = [
    *sorted(Path(__file__).parent.glob("*.py")),
    *(RUNTIME / name for name in ("door/door.py", "serve/server.py", "serve/models.py", "serve/stream/model.py")),
    RUNTIME / "serve" / "stream" / "forward.py",
]
"""What the records depend on, with what these import: a server is a command, and its models name their modules."""

Start = Callable[..., FaultServer]
Trial = Callable[..., None]

PROCESSES = [(layout, name) for layout in MODELS for name in (*MODELS[layout], "tritonserver", "guard")]
USUAL = {"queue": 8, "client_share": 1}
"""As operators have them, but for the queue."""


@pytest.fixture
def trial(proof: Callable[..., Any]) -> Trial:
    """Runs what has no record of these sources, and records what it returns."""

    def run(name: str, work: Callable[[], dict[str, Any]], record: str = "faults") -> None:
        found = proof(record, *SOURCES)
        if name not in found.trials:
            found.record(name, **work())

    return run


@pytest.mark.parametrize(("layout", "name"), PROCESSES)
def test_a_process_killed_in_a_step(start: Start, known: list[Known], trial: Trial, layout: str, name: str) -> None:
    def work() -> dict[str, Any]:
        with start(layout=layout) as server:
            found = fault_kills.kill_in_a_step(server, name, known)
            assert server.stop() == 0
        assert server.left() == []
        return found

    trial(f"kill {name} {layout}", work)


@pytest.mark.parametrize("layout", MODELS)
def test_the_launcher_killed_in_a_step(start: Start, known: list[Known], trial: Trial, layout: str) -> None:
    def work() -> dict[str, Any]:
        with start(layout=layout) as server:
            return fault_kills.kill_launcher(server, known)

    trial(f"kill launcher {layout}", work)


@pytest.mark.parametrize("scheme", ["grpc", "http"])
@pytest.mark.parametrize("layout", MODELS)
def test_a_client_killed_in_a_step(
    start: Start, known: list[Known], trial: Trial, tmp_path: Path, layout: str, scheme: str
) -> None:
    def work() -> dict[str, Any]:
        with start(layout=layout) as server:
            return fault_kills.kill_client(server, known, tmp_path / "portrait", scheme)

    trial(f"kill client {scheme} {layout}", work)


def test_a_minute_of_standing_still(start: Start, known: list[Known], trial: Trial) -> None:
    def work() -> dict[str, Any]:
        with start(settings=USUAL) as server:
            found = {name: fault_stops.pause(server, name, 60.0, known) for name in ("denoise", "tritonserver")}
            found["launcher"] = fault_stops.pause_launcher(server, 60.0, known)
            assert server.stop() == 0
        assert server.left() == []
        return found

    trial("stop for a minute", work)


@pytest.mark.parametrize("name", ["tritonserver", "denoise", "consisid_stream"])
@pytest.mark.parametrize("running", [True, False], ids=["in a step", "idle"])
def test_standing_still_for_ever(start: Start, known: list[Known], trial: Trial, name: str, running: bool) -> None:
    def work() -> dict[str, Any]:
        with start() as server:
            found = fault_stops.hang(server, name, known, running=running)
            assert server.stop() == 0
        assert server.left() == []
        return found

    trial(f"stop {name} {'in a step' if running else 'idle'}", work)


@pytest.mark.parametrize("name", ["guard", "tritonserver", "denoise"])
def test_what_stands_still_is_ended_too(start: Start, trial: Trial, name: str) -> None:
    def work() -> dict[str, Any]:
        with start() as server, fault_stops.stopped(server.pid(name)):
            assert server.stop() == 0
            assert server.left() == []
        return {"exit_status": 0}

    trial(f"end with {name} stopped", work)


@pytest.mark.parametrize("size", ["4k", "16k", "32k"])
def test_a_full_disk_before_the_start(
    start: Start, known: list[Known], trial: Trial, tmp_path: Path, size: str
) -> None:
    trial(f"disk of {size}", lambda: fault_full.no_room_to_start(start, tmp_path, size, known))


@pytest.mark.parametrize("size", ["64k", "1m", "3m"])
def test_full_memory_before_the_start(start: Start, known: list[Known], trial: Trial, size: str) -> None:
    trial(f"shared memory of {size}", lambda: fault_full.no_memory_to_start(start, size, known))


@pytest.mark.parametrize("names", [False, True], ids=["bytes", "names"])
def test_a_disk_that_fills(start: Start, known: list[Known], trial: Trial, tmp_path: Path, names: bool) -> None:
    what = "names" if names else "bytes"
    trial(f"disk without {what}", lambda: fault_full.disk_fills(start, tmp_path, known, names=names))


def test_a_log_that_fills(start: Start, known: list[Known], trial: Trial, tmp_path: Path) -> None:
    trial("log without room", lambda: fault_full.log_fills(start, tmp_path, known))


@pytest.mark.parametrize("room", [0, 2**16, 2**20])
def test_memory_that_fills(start: Start, known: list[Known], trial: Trial, room: int) -> None:
    trial(f"shared memory with {room} bytes left", lambda: fault_full.memory_fills(start, known, room))


def test_commands_on_a_full_disk(
    start: Start, known: list[Known], trial: Trial, untrained_bundle: Path, tmp_path: Path
) -> None:
    def work() -> dict[str, Any]:
        with start() as server:
            return fault_full.commands_fill(untrained_bundle, tmp_path, server, known)

    trial("commands without room", work)


def test_half_open_connections(start: Start, known: list[Known], trial: Trial) -> None:
    def work() -> dict[str, Any]:
        with start(settings=USUAL) as server:
            found = fault_connections.stay_silent(server, 12, 90, known)
            found |= fault_connections.never_read(server, 90, known)
            assert server.complete() and server.stop() == 0
        assert server.left() == []
        return found

    trial("half-open connections", work)


def test_sixty_four_clients_on_a_queue_of_eight(start: Start, known: list[Known], trial: Trial) -> None:
    def work() -> dict[str, Any]:
        with start(settings=USUAL) as server:
            found = fault_connections.crowd(server, 64, 8, known, soon=0.1)
            assert server.complete() and server.stop() == 0
        assert server.left() == []
        return found

    trial("64 clients", work)


@pytest.mark.parametrize("layout", MODELS)
def test_a_thousand_good_and_bad_requests(start: Start, known: list[Known], trial: Trial, layout: str) -> None:
    def work() -> dict[str, Any]:
        with start(settings=USUAL, layout=layout) as server:
            found = fault_mixture.send(server, range(1000), known, "mixture")
            assert server.stop() == 0
        assert server.left() == []
        return found

    trial(f"mixture {layout}", work)


class Soaked:
    """One server for the parts that run one after the other. It starts with the first that has no record."""

    def __init__(self, bundle: Path, folder: Path) -> None:
        self._bundle, self._folder = bundle, folder
        self.server: FaultServer | None = None

    def part(self, number: int, known: list[Known]) -> dict[str, Any]:
        warm = 0.0 if self.server else fault_soak.WARM
        self.server = self.server or FaultServer(self._bundle, self._folder).start()
        return fault_soak.part(self.server, number, fault_soak.SECONDS, known, warm=warm)


@pytest.fixture(scope="module")
def soaked(untrained_bundle: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    made = Soaked(untrained_bundle, tmp_path_factory.mktemp("soaked"))
    yield made
    if made.server is not None:
        assert made.server.stop() == 0
        assert made.server.left() == []


@pytest.mark.parametrize("number", range(fault_soak.PARTS))
def test_hours_of_traffic(soaked: Soaked, known: list[Known], trial: Trial, number: int) -> None:
    trial(f"part {number}", lambda: soaked.part(number, known), "soak")


def test_memory_does_not_grow(proof: Callable[..., Any]) -> None:
    """No process's memory grows by more than 5 MiB an hour, as far as all parts can tell."""
    trials = proof("soak", *SOURCES).trials
    parts = [trials[f"part {number}"] for number in range(fault_soak.PARTS)]
    growth = fault_soak.growth(parts)
    assert {name: found for name, found in growth.items() if found.low > 5} == {}
