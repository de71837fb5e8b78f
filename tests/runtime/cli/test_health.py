"""`consisid health`, as a probe runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime.cli import health as subject
from consisid_runtime.client.client import Client
from consisid_runtime.door.access import Access
from consisid_runtime.door.door import Door
from consisid_runtime.errors import Busy
from consisid_runtime.serve.tritonserver import TritonServer

MAIN = [sys.executable, "-c", "from consisid_runtime.cli.main import main; main()", "health"]
TOKEN = "a-long-enough-token"


def run(*arguments: str) -> tuple[int, dict[str, Any]]:
    environment = {name: value for name, value in os.environ.items() if name != "CONSISID_TOKEN"}
    done = subprocess.run([*MAIN, *arguments, "--json"], capture_output=True, text=True, env=environment)
    return done.returncode, json.loads(done.stdout)


@pytest.mark.server
def test_a_server_that_is_well(tiny_repository: Path, tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with Door(server, access=Access(TOKEN)) as door:
        status, told = run(door.http_url)
        assert (status, told.pop("seconds_in_all") < 10, told) == (0, True, {"ready": True, "busy": False})
        status, told = run(door.grpc_url, "--deep", "--token-file", str(tmp_path / "token"))
        assert status == 0 and told["seconds"] == {"face": 0.25} and told["ready"] and not told["busy"]
        status, told = run(door.http_url, "--deep")
        assert (status, told["error"]["code"]) == (3, "UNAUTHENTICATED")


def test_nothing_that_answers() -> None:
    status, told = run("http://127.0.0.1:9", "--timeout", "0.5")
    assert (status, told["error"]["code"]) == (6, "SERVER_UNREACHABLE")


def test_a_busy_server_is_well(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def busy(client: Client) -> Any:
        raise Busy("1 requests run and 0 wait; this one does not wait; try again in 7 s", 7.0)

    monkeypatch.setattr(Client, "ready", lambda client: True)
    monkeypatch.setattr(Client, "trial", busy)
    subject.health("http://127.0.0.1:9", deep=True, as_json=True)
    told = json.loads(capsys.readouterr().out)
    assert told["busy"] and told["retry_after"] == 7.0
    subject.health("http://127.0.0.1:9", deep=True)
    assert capsys.readouterr().out == "ready, and busy: a trial may be sent in 7 s\n"
