"""Suite `serving`: load on a server, and what serving costs a request.

Parts: what the door and Triton server add to the pipeline; clients in a closed loop, which say how long a request
takes; arrivals in an open loop at shares of what that allows; a mix of sizes and priorities; cancelled requests; an
idle server.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from consisid_measurement.commands import Json, MachineName, Out, Rounds, results_folder, run_suite
from consisid_runtime.cli.progress import Display

if TYPE_CHECKING:
    from consisid_benchmarks.suites.serving.parts import Figures, Parts
    from consisid_benchmarks.suites.serving.processes import Servers
    from consisid_measurement.record import Row, Series
    from consisid_runtime.events import Progress

SUITE = "serving"
GATE = "tests/runtime/door/test_clients.py"
PACKAGES = ("consisid-runtime", "consisid-nano", "nvidia-pytriton", "uvicorn", "grpcio", "torch", "numpy")
_CANCELLED, _IDLE_SECONDS = 40, 20.0


def command(rounds: Rounds = 60, machine: MachineName = None, out: Out = None, as_json: Json = False) -> None:
    """Load a server of nano with clients and with arrivals, and measure what serving costs a request: eleven minutes.

    A run that was interrupted goes on behind its last part.
    """
    from consisid_benchmarks.suites.serving.parts import Parts
    from consisid_measurement import environment
    from consisid_measurement.sources import Sources

    results, folder = results_folder(out), environment.checkout() / "build" / SUITE
    sources = Sources.of(environment.checkout(), [__file__])
    parts = Parts(folder / "parts", f"{sources.digest}, {rounds} rounds")

    def rows() -> Iterable[Row | Series]:
        with Display(f"bench {SUITE}") as display:
            return measure(folder, parts, rounds, display.update)

    run_suite(SUITE, GATE, rows, packages=PACKAGES, machine=machine, results=results, as_json=as_json)
    parts.forget()


def measure(folder: Path, parts: Parts, rounds: int, progress: Progress) -> Figures:
    """All parts. Raises `Mismatch` where the variants answer with different videos."""
    from consisid_benchmarks.suites.serving import unloaded
    from consisid_benchmarks.suites.serving.loaded import Loaded
    from consisid_benchmarks.suites.serving.processes import Servers

    with Servers(folder) as servers:
        figures = parts.run("overhead", partial(_overhead, servers, rounds, progress))
        loaded = Loaded(servers, progress)
        figures += (closed := parts.run("closed", loaded.closed))
        figures += parts.run("open", partial(loaded.open, closed))
        figures += parts.run("mix", partial(loaded.mixed, closed))
        figures += parts.run("cancelled", lambda: unloaded.cancelled(servers.door(), _CANCELLED, progress))
        figures += parts.run("idle", lambda: unloaded.idle(servers.door(), _IDLE_SECONDS))
    return figures


def _overhead(servers: Servers, rounds: int, progress: Progress) -> list[Row]:
    from consisid_benchmarks.suites.serving import overhead

    door = servers.door()
    with servers.direct() as direct:
        found = overhead.grpc(door, direct, servers.bundle(), rounds, progress)
        return found + overhead.http(door, direct, max(1, rounds // 2), progress)
