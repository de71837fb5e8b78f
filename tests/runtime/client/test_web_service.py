"""The example of docs/examples, served by uvicorn, before a door."""

from __future__ import annotations

import importlib.util
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import uvicorn
from test_cancel import outcomes

from consisid_runtime import Client
from consisid_runtime.door.door import Door

pytestmark = pytest.mark.server

EXAMPLE = Path(__file__).parents[3] / "docs" / "examples" / "web_service.py"
BOUNDARY = "x-x-x"


@pytest.fixture(scope="module")
def example() -> ModuleType:
    spec = importlib.util.spec_from_file_location("web_service", EXAMPLE)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module", params=["grpc", "http"])
def service(request: pytest.FixtureRequest, example: ModuleType, tiny_door: Door) -> Iterator[tuple[str, int]]:
    """Where it listens."""
    example.SERVERS = [tiny_door.grpc_url if request.param == "grpc" else tiny_door.http_url]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = uvicorn.Server(uvicorn.Config(example.app, log_level="critical"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        yield listener.getsockname()
        server.should_exit = True
        thread.join()


def post(**fields: str) -> tuple[bytes, dict[str, str]]:
    """The body of a form with the portrait `photo`, and its header fields."""
    parts = [f'name="{name}"\r\n\r\n{value}' for name, value in fields.items()]
    parts.append('name="portrait"; filename="me.jpg"\r\nContent-Type: image/jpeg\r\n\r\nphoto')
    body = "".join(f"--{BOUNDARY}\r\nContent-Disposition: form-data; {part}\r\n" for part in parts)
    return f"{body}--{BOUNDARY}--\r\n".encode(), {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"}


def ask(place: tuple[str, int], **fields: str) -> tuple[int, Any]:
    body, headers = post(**fields)
    request = urllib.request.Request(f"http://{place[0]}:{place[1]}/videos", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            assert answer.headers["Content-Type"] == "video/mp4"
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_a_portrait_and_a_prompt_become_a_video(service: tuple[str, int]) -> None:
    assert ask(service, prompt="a man", seed="7", steps="4") == (200, b"photo")
    with urllib.request.urlopen(f"http://{service[0]}:{service[1]}/ready", timeout=20) as answer:
        assert answer.status == 200


def test_errors_keep_their_status(service: tuple[str, int]) -> None:
    status, error = ask(service, prompt="no face")
    assert (status, error["code"]) == (400, "NO_FACE")
    status, error = ask(service, prompt="a man", steps="0")
    assert (status, error["code"]) == (400, "INVALID_OPTION")


def test_a_caller_who_leaves_frees_the_device(service: tuple[str, int], tiny_door: Door) -> None:
    before = outcomes(tiny_door).get("CANCELLED", 0)
    body, headers = post(prompt="sleep 30")
    fields = {"Host": "x", "Content-Length": str(len(body)), **headers}
    head = "".join(f"{name}: {value}\r\n" for name, value in fields.items())
    with socket.create_connection(service, timeout=10) as connection:
        connection.sendall(f"POST /videos HTTP/1.1\r\n{head}\r\n".encode() + body)
        time.sleep(0.4)
    begin = time.monotonic()
    assert Client(tiny_door.grpc_url, timeout=20).generate(b"photo", "a man").mp4 == b"photo"
    assert time.monotonic() - begin < 2
    assert outcomes(tiny_door)["CANCELLED"] == before + 1
