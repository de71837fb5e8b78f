"""A folder, and a real S3 server, as stores."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

KEY, SECRET = "consisid", "correct-horse-battery"
_NAMES = ("master", "volume", "filer", "s3")


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


@pytest.fixture(scope="session")
def s3(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a SeaweedFS server, which has no bucket yet and takes signed requests alone."""
    folder = tmp_path_factory.mktemp("seaweedfs")
    identity = {"name": "us", "credentials": [{"accessKey": KEY, "secretKey": SECRET}], "actions": ["Admin"]}
    (folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
    ports = _free_ports(2 * len(_NAMES))
    command = [shutil.which("weed") or "weed", "server", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-dir={folder}"]
    command += ["-filer", "-s3", f"-s3.config={folder / 's3.json'}", "-s3.port.iceberg=0", "-s3.port.lance=0"]
    command += ["-master.telemetry=false", "-volume.max=8", "-master.volumeSizeLimitMB=64"]
    for name, port, grpc in zip(_NAMES, ports[::2], ports[1::2], strict=True):
        command += [f"-{name}.port={port}", f"-{name}.port.grpc={grpc}"]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, cwd=folder)
    try:
        url = f"http://127.0.0.1:{ports[-2]}"
        _wait(url, process)
        yield url
    finally:
        process.kill()
        process.wait()


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    until = time.monotonic() + 30
    while True:
        try:
            urllib.request.urlopen(url, timeout=1).close()
            return
        except urllib.error.HTTPError as answer:  # it wants a signature
            answer.close()
            return
        except OSError:
            assert process.poll() is None and time.monotonic() < until, "the S3 server does not start"
            time.sleep(0.1)


@pytest.fixture
def use_s3(s3: str, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Has stores find the server in the environment."""

    def use() -> None:
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", KEY)
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
        monkeypatch.setenv("AWS_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", s3)
        monkeypatch.setenv("AWS_ALLOW_HTTP", "true")

    return use


@pytest.fixture(params=["a folder", pytest.param("S3", marks=pytest.mark.proof)])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a store's objects."""
    if request.param == "a folder":
        return str(tmp_path / "with space, ü and %41")
    request.getfixturevalue("use_s3")()
    return f"s3://videos/{request.node.name.partition('[')[0]}"
