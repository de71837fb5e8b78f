"""A door with a token: what strangers reach over either protocol, and what a request leaves where others could look."""

from __future__ import annotations

import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from door_requests import call, exchange, grpc_request, head, processes
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2

from consisid_runtime.door.access import Access
from consisid_runtime.door.door import Door
from consisid_runtime.door.http.app import App
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.wire import TOKEN_VARIABLE

pytestmark = pytest.mark.server

TOKEN = "a-token-of-some-length"
BEARER = f"Authorization: Bearer {TOKEN}"
PROMPT, NEGATIVE, IMAGE = "an unmistakable prompt", "an unmistakable negative prompt", b"an unmistakable photograph"

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")
HEALTH = {"/v2/health/live", "/v2/health/ready"}
CONTROL = {
    f"/v2/{path}"
    for path in (
        "repository/models/consisid/load", "repository/models/consisid/unload", "systemsharedmemory/status",
        "systemsharedmemory/region/x/register", "systemsharedmemory/unregister", "cudasharedmemory/region/x/register",
        "trace/setting", "models/consisid/trace/setting", "logging", "models/stats", "models/consisid/stats",
    )
}  # fmt: skip
"""Triton server's own, none of which there is."""
FORMS = {
    "no token": (),
    "another token": (f"Authorization: Bearer {TOKEN[:-1]}",),
    "no scheme": (f"Authorization: {TOKEN}",),
    "another scheme": (f"Authorization: Basic {TOKEN}",),
    "another field": (f"X-Authorization: Bearer {TOKEN}", f"Proxy-Authorization: Bearer {TOKEN}"),
    "a cookie": (f"Cookie: Authorization=Bearer {TOKEN}",),
    "a forwarded address": ("X-Forwarded-For: 127.0.0.1", "Forwarded: for=127.0.0.1", "X-Real-IP: 127.0.0.1"),
}

KSERVE = "inference.GRPCInferenceService"
OPEN = {f"{KSERVE}/ServerLive", f"{KSERVE}/ServerReady", "grpc.health.v1.Health/Check", "grpc.health.v1.Health/Watch"}
CLOSED = {
    *(f"{KSERVE}/{name}" for name in ("ModelReady", "ServerMetadata", "ModelMetadata", "ModelConfig")),
    *(f"{KSERVE}/{name}" for name in ("ModelInfer", "ModelStreamInfer", "RepositoryIndex")),
    "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
    "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """For temporary files."""
    return tmp_path_factory.mktemp("temporary")


@pytest.fixture(scope="module")
def guarded(tiny_repository: Path, folder: Path) -> Iterator[tuple[Door, TritonServer]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", str(folder))
        patch.setenv(TOKEN_VARIABLE, TOKEN)
        server = TritonServer(tiny_repository, private=True, ready_timeout=60)
        with Door(server, access=Access.read()) as door:
            yield door, server


def routes() -> set[str]:
    """The paths of every route that there is."""
    nothing: Any = None
    found = {route.path for route in App(nothing)._routed.routes}  # type: ignore[attr-defined]
    return {path.replace("{model}", "consisid_stream").replace("{version}", "1") for path in found}


def status(door: Door, method: str, path: str, *fields: str) -> int:
    answer = exchange(door.http_url, head(0, "Connection: close", *fields, path=path, method=method))
    return int(answer.split()[1])


def test_every_route_wants_the_token_in_every_form(guarded: tuple[Door, TritonServer]) -> None:
    door, _ = guarded
    paths = (routes() | CONTROL) - HEALTH
    assert len(paths - CONTROL) >= 15 and routes() >= HEALTH
    found = {(path, name): status(door, "POST", path, *fields) for path in paths for name, fields in FORMS.items()}
    assert {key: code for key, code in found.items() if code != 401} == {}
    found = {(path, method): status(door, method, path) for path in paths for method in METHODS}
    assert {key: code for key, code in found.items() if code != 401} == {}
    assert {status(door, method, path, BEARER) for path in CONTROL for method in ("GET", "POST")} <= {404, 405}
    assert {status(door, "GET", path) for path in HEALTH} == {200}


@pytest.mark.parametrize(
    "path",
    [
        "/v2/health/../models/consisid",
        "/v2/health/..%2fmodels/consisid",
        "/v2/health/%2e%2e/models/consisid",
        "/v2/health/live/../../models/consisid",
        "/v2/health//v2/models/consisid",
        "/v2/health/ready;/v2/models/consisid",
        "/v2/health/%00/v2/models/consisid",
        "http://x/v2/health/../models/consisid",
        "//v2/models/consisid",
        "/V2/models/consisid",
        "/v2/models/consisid?x=/v2/health/",
        "/v2/models/consisid#/v2/health/",
        f"/v2/models/consisid?token={TOKEN}",
    ],
)
def test_a_path_that_looks_like_healths_opens_nothing(guarded: tuple[Door, TritonServer], path: str) -> None:
    assert status(guarded[0], "GET", path) in (400, 401, 404)


def test_every_call_wants_the_token_or_is_unknown(guarded: tuple[Door, TritonServer]) -> None:
    described = (service_pb2.DESCRIPTOR, health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)
    paths = {
        f"{service.full_name}/{method.name}"
        for file in described
        for service in file.services_by_name.values()
        for method in service.methods
    }
    paths.add("grpc.reflection.v1.ServerReflection/ServerReflectionInfo")
    codes: dict[str, str] = {}
    with grpc.insecure_channel(guarded[0].grpc_url.partition("//")[2]) as channel:
        for metadata in ((), (("authorization", TOKEN),), (("authorization-bin", f"Bearer {TOKEN}".encode()),)):
            for path in paths:
                answers = channel.stream_stream(f"/{path}")(iter([b""]), timeout=10, metadata=metadata)
                try:
                    next(answers)
                    codes[path] = "OK"
                except grpc.RpcError as error:
                    codes[path] = error.code().name
                answers.cancel()
            assert {path for path, code in codes.items() if code == "OK"} == OPEN
            assert {path for path, code in codes.items() if code == "UNAUTHENTICATED"} == CLOSED
            assert {codes[path] for path in paths - OPEN - CLOSED} == {"UNIMPLEMENTED"}


def shown(server: TritonServer, folder: Path) -> dict[str, bytes]:
    """All that the server's processes and the temporary files show: name → content. Checks the files' modes."""
    found = {}
    for pid in processes(server, ""):
        for name in ("cmdline", "environ"):
            path = Path(f"/proc/{pid}/{name}")
            found[str(path)] = path.read_bytes()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.suffix != ".key":
            found[str(path)] = path.read_bytes()
        if path.parent == folder:
            assert not stat.S_IMODE(path.stat().st_mode) & 0o077, path
    return found


def test_no_process_and_no_file_shows_a_request_or_a_secret(guarded: tuple[Door, TritonServer], folder: Path) -> None:
    door, server = guarded
    assert len(processes(server, "")) >= 4, "guard, server and models"
    given = (("authorization", f"Bearer {TOKEN}"),)

    def ask(prompt: str) -> None:
        request = grpc_request(prompt, IMAGE)
        request.parameters["negative_prompt"].string_param = NEGATIVE
        assert call(door.grpc_url, request, metadata=given).raw_output_contents[0] == IMAGE

    asking = threading.Thread(target=ask, args=("sleep 0.5",))
    asking.start()
    time.sleep(0.2)
    seen = [shown(server, folder)]
    asking.join()
    ask(PROMPT)
    seen.append(shown(server, folder))
    secrets = (TOKEN.encode(), PROMPT.encode(), NEGATIVE.encode(), IMAGE, b"PRIVATE KEY")
    for found in seen:
        assert {name for name, text in found.items() if any(secret in text for secret in secrets)} == set()
