"""Suite `serving`: what the door costs a request, beside Triton server's own ports."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from consisid_measurement.commands import Json, MachineName, Out, Rounds, results_folder, run_suite
from consisid_runtime.cli.progress import Display

if TYPE_CHECKING:
    from consisid_measurement.record import Row
    from consisid_runtime.client.client import Client
    from consisid_runtime.events import Progress

SUITE = "serving"
GATE = "tests/runtime/door/test_clients.py"
PACKAGES = ("consisid-runtime", "consisid-nano", "nvidia-pytriton", "uvicorn", "grpcio", "torch", "numpy")
OURS, DIRECT = "ours", "direct"
_STEPS, _FRAMES = 6, 17


def command(rounds: Rounds = 30, machine: MachineName = None, out: Out = None, as_json: Json = False) -> None:
    """Measure requests to nano through the door and to Triton server itself, in turn, over gRPC and HTTP."""
    from consisid_measurement import environment

    results = results_folder(out)

    def rows() -> list[Row]:
        with Display(f"bench {SUITE}") as display:
            return measure(environment.checkout() / "build" / SUITE, rounds, display.update)

    run_suite(SUITE, GATE, rows, packages=PACKAGES, machine=machine, results=results, as_json=as_json)


def measure(folder: Path, rounds: int, progress: Progress) -> list[Row]:
    """Seconds of a whole call of `Client.generate`. Raises `Mismatch` where the two answer with other bytes."""
    import consisid_nano
    from consisid_export.bundle.export import export_bundle
    from consisid_export.checkpoint.checkpoint import Checkpoint
    from consisid_measurement.harness import Arm, interleave
    from consisid_runtime.client.client import Client
    from consisid_runtime.door.door import Door
    from consisid_runtime.serve.server import Server

    export_bundle(Checkpoint.open(consisid_nano.checkpoint()), folder, engine="mixed")
    rows: list[Row] = []
    with Door(Server(folder, private=True)) as door, Server(folder) as server:
        for shown, scheme in (("gRPC", "grpc_url"), ("HTTP", "http_url")):
            with Client(getattr(door, scheme)) as ours, Client(getattr(server, scheme)) as direct:
                _require_same_bytes(ours, direct)
                arms = [Arm(OURS, partial(_request, ours)), Arm(DIRECT, partial(_request, direct))]
                case = f"nano, {_STEPS} steps, {_FRAMES} frames, {shown}"
                rows += interleave(case, arms, rounds=rounds, warmup=3, progress=progress)
    return rows


def _require_same_bytes(ours: Client, direct: Client) -> None:
    from consisid_measurement.harness import Mismatch

    if _generate(ours) != _generate(direct):
        raise Mismatch("the door and Triton server answered with different videos")


def _request(client: Client) -> dict[str, float]:
    import time

    begin = time.perf_counter()
    _generate(client)
    return {"total_seconds": time.perf_counter() - begin}


def _generate(client: Client) -> bytes:
    from consisid_fidelity.nano.evaluation_set import case, png
    from consisid_runtime.options import Options

    one = case(0)
    options = Options(seed=one.seed, steps=_STEPS, frames=_FRAMES)
    return client.generate(png(one.portrait()), one.prompt, options).mp4
