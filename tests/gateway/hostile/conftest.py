"""A whole gateway in a process of its own, with the keys of several tenants."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from commands import GATEWAY
from whole import Whole

from consisid_gateway.access import keys
from consisid_gateway.access.caller import Limits, Scope
from consisid_gateway.jobs.database import Database
from consisid_gateway.objects.store import Store


@pytest.fixture(scope="package")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Whole]:
    folder = tmp_path_factory.mktemp("gateway")
    database, store = Database(f"sqlite:///{folder / 'consisid.sqlite'}"), Store(str(folder / "objects"))
    database.prepare()
    with database.transaction() as connection:
        made = {name: keys.make(connection, name)[0] for name in ("ada", "bob")}
        made["all"] = keys.make(connection, "operator", scopes=list(Scope))[0]
        made["few"] = keys.make(connection, "few", limits=Limits(jobs=2))[0]
    settings = {"data": str(folder), "port": 0, "audit_file": str(folder / "audit.jsonl"), "character_seconds": 0}
    process = subprocess.Popen([sys.executable, "-c", GATEWAY, json.dumps(settings)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    late = threading.Timer(60, process.kill)
    late.start()
    try:
        url = process.stdout.readline().strip()
        late.cancel()
        assert url, "it did not start"
        yield Whole(process, url, database, store, folder / "audit.jsonl", **made)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        late.cancel()
        process.kill()
        process.wait()
        process.stdout.close()
        database.close()
