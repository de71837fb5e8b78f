"""What goes to a door that listens, with a server behind it: bodies and messages of the other kinds, and raw HTTP."""

from __future__ import annotations

import functools
import json
import os
import time
from random import Random
from typing import Any

import grpc
import grpc_cases
import http_cases
from byte_changes import changed
from door_requests import exchange, head
from tritonclient.grpc import service_pb2

from consisid_runtime.errors import ServerError, all_errors, from_wire

SECONDS = 2.0
"""Of wall time, the bound of a case."""
_CLOSED = b""
_CODES = {kind.code for kind in all_errors()}


def make(chance: Random) -> tuple[str, list[bytes]]:
    """The protocol, and what is sent: one HTTP request, or the messages of a call."""
    what = chance.randrange(10)
    if what < 5:
        return "http", [_request(chance, http_cases.make(chance))]
    if what < 7:
        return "raw http", [changed(chance, _request(chance, http_cases.make(chance)), most=3)]
    calls = ["ModelInfer", "ModelStreamInfer", "ModelInfer", "ModelStreamInfer", "ModelMetadata", "ServerLive"]
    call = chance.choice(calls)
    return call, [grpc_cases.make(chance) for _ in range(chance.randint(1, 3) if call == "ModelStreamInfer" else 1)]


def _request(chance: Random, body: http_cases.Body) -> bytes:
    fields = ["Connection: close"]
    if body.head < len(body.content) or chance.random() < 0.1:
        fields.append(f"Inference-Header-Content-Length: {body.head}")
    if chance.random() < 0.1:
        odd = [
            "Content-Encoding: gzip",
            "Expect: 100-continue",
            "Content-Type: text/plain",
            "X-Request-Id: " + "é" * 300,
        ]
        fields.append(chance.choice(odd))
    path = f"/v2/models/{body.model}/{body.call}"
    return head(len(body.content), *fields, path=path) + body.content


def run(case: tuple[str, list[bytes]]) -> None:
    protocol, messages = case
    begin = time.monotonic()
    try:
        if protocol.endswith("http"):
            _http(messages[0], raw=protocol == "raw http")
        else:
            _grpc(protocol, messages)
    finally:
        seconds = time.monotonic() - begin
        assert seconds <= SECONDS, f"the answer took {seconds:.1f} s"


def _http(data: bytes, *, raw: bool) -> None:
    """Raises the answer's error. Raw bytes may end in a connection that is closed, or in no path of the door's."""
    answer = exchange(os.environ["FUZZED_HTTP"], data)
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    if raw and answer == _CLOSED:
        return
    status, body = int(answer.split(None, 2)[1]), answer.partition(b"\r\n\r\n")[2]
    if status != 200:
        _refused(str(json.loads(body)["error"]))
    for line in body.split(b"\n"):
        if line.startswith(b"data: "):
            found = json.loads(line.removeprefix(b"data: "))
            if "error" in found:
                _refused(str(found["error"]))


def _refused(message: str) -> None:
    """Raises the typed error of a message; what has none is a finding."""
    code = message.partition(":")[0]
    assert code in _CODES - {ServerError.code}, f"an untyped error: {message[:300]}"
    raise from_wire(message)


@functools.cache
def _channel() -> Any:
    address = os.environ["FUZZED_GRPC"].partition("//")[2]
    return grpc.insecure_channel(address, options=[("grpc.max_receive_message_length", -1)])


def _grpc(call: str, messages: list[bytes]) -> None:
    path = f"/inference.GRPCInferenceService/{call}"
    try:
        if call != "ModelStreamInfer":
            _channel().unary_unary(path)(messages[0], timeout=20)
            return
        answers = _channel().stream_stream(path, response_deserializer=service_pb2.ModelStreamInferResponse.FromString)
        errors = [answer.error_message for answer in answers(iter(messages), timeout=20) if answer.error_message]
    except grpc.RpcError as error:
        _refused(error.details())
    for message in errors:
        _refused(message)
