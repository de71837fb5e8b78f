from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.client.client import Client
from consisid_runtime.errors import (
    BundleCorrupt,
    BundleMissing,
    ConsisIDError,
    InvalidOption,
    MissingExtra,
    ServerError,
)
from consisid_runtime.serve import installation
from consisid_runtime.serve.installation import Installation, find
from consisid_runtime.serve.server import Server, model_repository
from consisid_runtime.serve.tritonserver import TritonServer


def test_without_a_server_the_error_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(installation, "CONTAINER", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingExtra, match=r"pip install 'consisid-runtime\[server\]'"):
        find()


def test_nvidias_container_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    monkeypatch.setattr(installation, "CONTAINER", tmp_path)
    monkeypatch.setenv("PATH", "")
    (tmp_path / "bin").mkdir()
    (tmp_path / "backends").mkdir()
    binary = tmp_path / "bin" / "tritonserver"
    binary.write_text("#!/bin/sh\n")
    binary.chmod(0o755)
    assert find() == Installation(binary, tmp_path / "backends")


def test_finding_the_server_imports_nothing_of_it() -> None:
    code = "import sys; from consisid_runtime.serve.installation import find; find(); print('pytriton' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "False\n"


def test_a_temporary_folder_with_a_space(
    tiny_repository: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "with space").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "with space"))
    with TritonServer(tiny_repository, ready_timeout=60) as server, Client(server.grpc_url) as client:
        assert client.ready()


def test_a_port_in_use_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidOption, match=f"127.0.0.1:{port} for HTTP"):
            TritonServer(tmp_path, http_port=port).start()


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_out_of_range(tmp_path: Path, port: int) -> None:
    with pytest.raises(InvalidOption, match=f"from 0 to 65535, got {port}"):
        TritonServer(tmp_path, grpc_port=port).start()


def test_one_port_for_two_services(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match="port 8000 was given for two services"):
        TritonServer(tmp_path, grpc_port=8000, metrics_port=8000).start()


def test_a_missing_bundle_is_noticed_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(BundleMissing):
        Server(tmp_path / "nowhere").start()


def test_the_committed_repository_is_the_one_served() -> None:
    assert model_repository() == Path(__file__).parents[3] / "model_repository"


def test_a_device_that_there_is_not_is_noticed_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(InvalidOption, match=r"device must be one of .* got 'cuda:x'"):
        Server(tmp_path, device="cuda:x")


@pytest.mark.server
def test_a_model_that_cannot_load_gives_its_own_error(tiny_repository: Path) -> None:
    server = TritonServer(tiny_repository, environment={"TINY_LOAD": "second"}, ready_timeout=60)
    with pytest.raises(BundleCorrupt, match=r"transformer.onnx in bundle changed after the export$"):
        server.start()


@pytest.mark.server
def test_a_broken_repository_gives_the_end_of_the_log(tmp_path: Path) -> None:
    log = tmp_path / "server.log"
    log.write_text("NO_FACE: from an earlier run\n")
    repository = tmp_path / "repository"
    (repository / "broken" / "1").mkdir(parents=True)
    (repository / "broken" / "config.pbtxt").write_text('name: "broken" backend: "nonesuch"')
    with pytest.raises(ServerError, match="nonesuch") as caught:
        TritonServer(repository, ready_timeout=60, log=log).start()
    assert "earlier" not in str(caught.value)
    assert log.read_text().startswith("NO_FACE: from an earlier run\n")


@pytest.mark.server
def test_a_server_that_never_gets_ready_is_ended(tiny_repository: Path) -> None:
    server = TritonServer(tiny_repository, ready_timeout=0)
    with pytest.raises(ServerError, match="not ready after 0 s"):
        server.start()
    server.stop()


@pytest.mark.server
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/systemsharedmemory/region/x/register"),
        ("GET", "/v2/systemsharedmemory/status"),
        ("POST", "/v2/cudasharedmemory/region/x/register"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/first/load"),
        ("POST", "/v2/repository/models/first/unload"),
        ("GET", "/v2/trace/setting"),
        ("POST", "/v2/models/first/trace/setting"),
        ("GET", "/v2/logging"),
        ("POST", "/v2/logging"),
    ],
)
def test_http_refuses_everything_but_inference(tiny_server: TritonServer, method: str, path: str) -> None:
    host, port = tiny_server.http_url.removeprefix("http://").split(":")
    connection = http.client.HTTPConnection(host, int(port), timeout=10)
    connection.request(method, path, "{}")
    response = connection.getresponse()
    answer = json.loads(response.read())
    connection.close()
    assert (response.status, answer["error"][:33]) == (403, "This API is restricted, expecting")


@pytest.mark.server
@pytest.mark.parametrize(
    "call",
    [
        "SystemSharedMemoryRegister", "SystemSharedMemoryStatus", "CudaSharedMemoryRegister", "RepositoryIndex",
        "RepositoryModelLoad", "RepositoryModelUnload", "TraceSetting", "LogSettings",
    ],
)  # fmt: skip
def test_grpc_refuses_everything_but_inference(tiny_server: TritonServer, call: str) -> None:
    with grpc.insecure_channel(tiny_server.grpc_url.removeprefix("grpc://")) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            getattr(stub, call)(getattr(service_pb2, f"{call}Request")(), timeout=10)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
    assert "restricted" in refused.value.details()


@pytest.mark.server
def test_only_loopback_listens(tiny_server: TritonServer) -> None:
    ports = {
        int(url.split(":")[2].split("/")[0])
        for url in (tiny_server.grpc_url, tiny_server.http_url, tiny_server.metrics_url)
    }
    addresses = {
        line.split()[1].split(":")[0]
        for table in ("tcp", "tcp6")
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]
        if int(line.split()[1].split(":")[1], 16) in ports and line.split()[3] == "0A"
    }
    mapped_into_ipv6 = "0000000000000000FFFF00000100007F"
    assert addresses == {"0100007F", mapped_into_ipv6}


@pytest.mark.server
def test_metrics_are_served(tiny_server: TritonServer) -> None:
    with urllib.request.urlopen(tiny_server.metrics_url, timeout=10) as answer:
        assert b'nv_inference_request_success{model="consisid"' in answer.read()


ASK = """
import json, sys
from pathlib import Path
from consisid_runtime import Client
from consisid_runtime.serve.tritonserver import TritonServer
folder = Path(sys.argv[2])
with TritonServer(Path(sys.argv[1]), folders={"TINY_FOLDER": folder}) as server, Client(server.grpc_url) as client:
    print(json.dumps(client.generate(b"image", "a man").info))
"""


@pytest.mark.server
def test_the_models_are_the_launchers_wherever_it_was_started(tiny_repository: Path, tmp_path: Path) -> None:
    clone = tmp_path / "clöne" / "consisid_runtime"
    shutil.copytree(installation.PACKAGE, clone, ignore=shutil.ignore_patterns("__pycache__"))
    repository = tmp_path / "mödels"
    shutil.copytree(tiny_repository, repository)
    started_in = tmp_path / "start"
    (started_in / "consisid_runtime").mkdir(parents=True)
    for name in ("numpy.py", "consisid_runtime/__init__.py"):
        (started_in / name).write_text("raise RuntimeError('code from where the server was started')")
    done = subprocess.run(
        [sys.executable, "-P", "-c", ASK, "../mödels", str(tmp_path)],
        cwd=started_in, env={**os.environ, "PYTHONPATH": str(clone.parent)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    info = json.loads(done.stdout)
    assert os.fsdecode(os.fsencode(info["package"])) == str(clone / "__init__.py")
    assert info["folder"].isascii()


SERVE = """
import sys
from pathlib import Path
import consisid_runtime.serve.server
from consisid_runtime.cli.main import main
from consisid_runtime.serve.tritonserver import TritonServer
def tiny(bundle, device, layout, memory, watermark, faces_kept, faces_seconds, **settings):
    return TritonServer(bundle, **settings)
consisid_runtime.serve.server.Server = tiny
ports = ["--grpc-port", "0", "--http-port", "0"]
sys.argv = ["consisid", "serve", "--json", "--bundle", sys.argv[1], *ports, *sys.argv[2:]]
main()
"""


@pytest.mark.server
@pytest.mark.parametrize("more", [[], ["--direct", "--metrics-port", "0"]], ids=["door", "direct"])
def test_serve_shows_the_log_and_ends_when_told_to(tiny_repository: Path, tmp_path: Path, more: list[str]) -> None:
    """The door's settings are a file's and a variable's."""
    command, environment = [sys.executable, "-c", SERVE, str(tiny_repository), *more], dict(os.environ)
    if not more:
        (tmp_path / "serve.toml").write_text("queue = 7\nhead_bytes = 1024\nready_seconds = 60\ngrpc_port = 1\n")
        command += ["--config", str(tmp_path / "serve.toml")]
        environment["CONSISID_SERVE_QUEUE"] = "8"
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as serve:
        assert serve.stdout is not None
        urls = json.loads(serve.stdout.readline())
        try:
            with (
                Client(urls["grpc"], timeout=30) as client,
                pytest.raises(ConsisIDError, match=r"(second|consisid_stream) failed"),
            ):
                client.generate(b"image", "crash")
            if not more:
                with urllib.request.urlopen(urls["metrics"]) as metrics:
                    assert b"consisid_queue_places 8.0\n" in metrics.read()
                long = urllib.request.Request(urls["metrics"], headers={"x": "y" * 1024})
                with pytest.raises(urllib.error.HTTPError, match="431") as refused, urllib.request.urlopen(long):
                    pass
                refused.value.close()
        finally:
            serve.send_signal(signal.SIGTERM)
        _, log = serve.communicate(timeout=30)
    assert serve.returncode == 0, log
    assert "RuntimeError: /secret/path" in log
    assert ("--direct: callers reach Triton server itself" in log) == bool(more)
    assert ('"outcome": "INTERNAL"' in log) != bool(more), "the door writes a line for each request"
    for url in urls.values():
        with socket.socket() as free:
            free.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            free.bind(("127.0.0.1", int(url.split(":")[2].split("/")[0])))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--metrics-port", "8002"], "metrics_port belongs to --direct (metrics_port: --metrics-port)"),
        (["--direct", "--token-file", "x"], "no TLS, no token"),
        (["--direct", "--tls-cert", "x", "--tls-key", "y"], "no TLS, no token"),
        (["--direct", "--max-steps", "20"], "max_steps is the door's (max_steps: --max-steps, direct: --direct)"),
        (["--tls-cert", "x"], "x cannot be read"),
        (["--token-file", "/nowhere/token"], "/nowhere/token cannot be read"),
    ],
)
def test_flags_of_serve_that_do_not_agree(tmp_path: Path, words: list[str], message: str) -> None:
    code = "import sys; from consisid_runtime.cli.main import main; main()"
    command = [sys.executable, "-c", code, "serve", "--bundle", str(tmp_path / "nowhere"), *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in (3, 4) and message in done.stderr


@pytest.mark.server
def test_serve_without_standard_streams(tiny_repository: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    code = SERVE.replace('"--http-port", "0"', f'"--http-port", "{port}"')
    with subprocess.Popen(
        ["sh", "-c", 'exec "$0" -c "$1" "$2" <&- >&- 2>&-', sys.executable, code, str(tiny_repository)]
    ) as serve:
        deadline = time.monotonic() + 60
        while serve.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/health/ready"):
                break
            time.sleep(0.1)
        assert serve.poll() is None
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(30) == 0
