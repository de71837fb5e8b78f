"""The commands of docs/gateway.md for several machines: two servers, two workers, two gateways, PostgreSQL."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from commands import Caller, Command
from postgresql import PostgreSQL

from consisid_gateway.jobs.database import Database
from consisid_gateway.jobs.reading import several

pytestmark = [
    pytest.mark.proof,
    pytest.mark.server,
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]
VIDEOS = 6


def test_jobs_outlive_a_worker_a_server_and_a_gateway(
    untrained_bundle: Path,
    portrait: bytes,
    wanted: bytes,
    options: dict[str, int],
    postgresql: PostgreSQL,
    tmp_path: Path,
) -> None:
    url = postgresql.database()
    stored = ("--database", url, "--objects", str(tmp_path / "objects"))
    (tmp_path / "token").write_text("0123456789abcdefghij")
    token = ("--token-file", str(tmp_path / "token"))
    with contextlib.ExitStack() as stack:

        def start(*arguments: str, **environment: str) -> Command:
            return stack.enter_context(Command(tmp_path / "log", *arguments, **environment))

        serve = ("serve", "--bundle", str(untrained_bundle), *token, "--grpc-port", "0", "--http-port", "0")
        servers = [start(*serve, CONSISID_SERVE_LAYOUT="single") for _ in range(2)]
        workers = [
            start("worker", *stored, "--server", server.told["grpc"], *token, "--name", f"gpu-{number}")
            for number, server in enumerate(servers)
        ]
        key = start("keys", "make", "studio", "--database", url, "--jobs", "20").told["key"]
        gateways = [start("gateway", *stored, "--port", "0") for _ in range(2)]
        asking, other = (Caller(gateway.told["url"], key) for gateway in gateways)
        names = [worker.told["worker"] for worker in workers]
        ids = [asking.ask(portrait, **options) for _ in range(VIDEOS)]
        other.wait_for_progress(ids[0])
        gateways[0].kill()
        workers[0].kill()
        assert other.video(ids[0]) == wanted
        workers[0] = start("worker", *stored, "--server", servers[0].told["grpc"], *token, "--name", "gpu-0")
        other.wait_for_progress(ids[-1])
        servers[1].kill()
        assert all(other.video(id) == wanted for id in ids)
        database = Database(url)
        with database.reading() as connection:
            made = several(connection, ids)
        database.close()
        assert {str(job.worker).rpartition("-")[0] for job in made.values()} == set(names)
        assert max(job.epoch for job in made.values()) > 1, "nothing was taken over"
        for command in (gateways[1], *workers, servers[0]):
            assert command.stop() == 0
