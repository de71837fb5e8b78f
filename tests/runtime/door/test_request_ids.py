"""One id of a request, from its caller to the door's log and to the models."""

from __future__ import annotations

import io
import json
import logging
import struct
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import grpc
import pytest
from door_requests import grpc_request, json_request
from tritonclient.grpc import service_pb2_grpc

from consisid_runtime.door.door import Door
from consisid_runtime.door.records import writing

pytestmark = pytest.mark.server

SECRET = "untyped"
"""The prompt on which the models answer as Triton server itself would."""


@pytest.fixture
def log() -> Iterator[io.StringIO]:
    with writing(logging.StreamHandler(text := io.StringIO())):
        yield text


def lines(log: io.StringIO, request: str, count: int) -> list[dict[str, Any]]:
    """Those that name the request, once there are as many."""
    end = time.monotonic() + 10
    while True:
        found = [line for text in log.getvalue().splitlines() if (line := json.loads(text)).get("request") == request]
        if len(found) >= count or time.monotonic() > end:
            return found
        time.sleep(0.01)


def over_http(door: Door, prompt: str, identifier: str) -> tuple[str, Any]:
    """The id that the answer carries, and the video's info, None for an error."""
    body = json.dumps(json_request(prompt, outputs=[{"name": "info"}], id="KServe's")).encode()
    request = urllib.request.Request(
        f"{door.http_url}/v2/models/consisid/infer", body, {"x-request-id": identifier} if identifier else {}
    )
    try:
        with urllib.request.urlopen(request, timeout=20) as answer:
            return answer.headers["x-request-id"], json.loads(json.load(answer)["outputs"][0]["data"][0])
    except urllib.error.HTTPError as error:
        error.close()
        return error.headers["x-request-id"], None


def over_grpc(door: Door, prompt: str, identifier: str) -> tuple[str, Any]:
    message = grpc_request(prompt, change=lambda request: setattr(request.outputs[0], "name", "info"))
    message.id = "KServe's"
    with grpc.insecure_channel(door.grpc_url.partition("//")[2]) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        metadata = (("x-request-id", identifier),) if identifier else ()
        try:
            answer, call = stub.ModelInfer.with_call(message, timeout=20, metadata=metadata)
        except grpc.RpcError as error:
            return dict(error.trailing_metadata())["x-request-id"], None
    raw = answer.raw_output_contents[0]
    return dict(call.trailing_metadata())["x-request-id"], json.loads(raw[4 : 4 + struct.unpack_from("<I", raw)[0]])


@pytest.mark.parametrize("ask", [over_http, over_grpc])
@pytest.mark.parametrize("identifier", ["mine-7", ""])
def test_the_models_are_told_the_id_of_the_answer(tiny_door: Door, ask: Any, identifier: str) -> None:
    told, info = ask(tiny_door, "which", identifier)
    assert told and (told == identifier or not identifier)
    assert info["request"] == told


@pytest.mark.parametrize("ask", [over_http, over_grpc])
def test_every_line_of_a_request_names_it(tiny_door: Door, log: io.StringIO, ask: Any) -> None:
    """Lines of earlier tests' requests may still come: the door answers before it writes that a request ended."""
    name = f"mine-{ask.__name__}"
    assert ask(tiny_door, SECRET, name) == (name, None)
    failed, ended = lines(log, name, 2)
    assert failed["level"] == "error" and failed["message"].startswith("Triton server answered")
    assert ended["outcome"] == "SERVER_ERROR"
    assert ask(tiny_door, "a man", "mine-9")[1]
    assert SECRET not in log.getvalue()
