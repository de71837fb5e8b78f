"""Hostile requests: each is answered with a typed error or closed, and neither the door nor Triton server ends.

The first ones of each protocol end Triton server 2.51 where they reach it.
"""

from __future__ import annotations

import gzip
import json
import os
import socket
import threading
from collections.abc import Callable
from typing import Any

import grpc
import pytest
from door_requests import call, exchange, grpc_request, head, json_request, place, post, refusal, video
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.door.door import Door

pytestmark = pytest.mark.server

MALFORMED, LARGE, OPTION, MISSING = "MALFORMED_REQUEST", "REQUEST_TOO_LARGE", "INVALID_OPTION", "NOT_FOUND"
ANY = object()

Body = dict[str, Any]


def shaped(*shape: int) -> Body:
    body = json_request()
    body["inputs"][0]["shape"] = list(shape)
    return body


def tensor(**changes: Any) -> Body:
    body = json_request()
    body["inputs"][0] |= changes
    return body


def binary(size: Any, body: bytes = b"abc", length: Any = None) -> bytes:
    """A request in binary form that lies about sizes."""
    changed = json_request()
    changed["inputs"][0] |= {"parameters": {"binary_data_size": size}}
    del changed["inputs"][0]["data"]
    text = json.dumps(changed).encode()
    said = len(text) if length is None else length
    return post(text + body, f"Inference-Header-Content-Length: {said}")


def output(name: str, **parameters: Any) -> Body:
    return json_request(outputs=[{"name": name, "parameters": parameters}])


TEXT = json.dumps(json_request()).encode()
FORM = "Content-Type: application/x-www-form-urlencoded"
CHUNKED = b"POST /v2/models/consisid/infer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"

HTTP: dict[str, tuple[Callable[[], bytes], Any, Any]] = {
    # What ends Triton server 2.51.
    "a form of 6 MB": (lambda: post(b"a=" + b"b" * 6 * 10**6, FORM), 400, MALFORMED),
    "classification of info": (lambda: post(output("info", classification=1)), 400, MALFORMED),
    "classification of frames": (lambda: post(output("frames", classification=3)), 400, MALFORMED),
    "a shape of 2^62": (lambda: post(shaped(2**62)), 400, MALFORMED),
    "300,000 nested objects": (lambda: post(b'{"a":' * 300_000), 400, MALFORMED),
    "a million chunks": (lambda: CHUNKED + b"1\r\n{\r\n" * 1_000_000 + b"0\r\n\r\n", 400, MALFORMED),
    "40,000 parameters": (lambda: post(json_request(parameters={f"p{n}": 1 for n in range(40_000)})), 400, MALFORMED),
    "200 MB announced and sent": (lambda: post(bytes(200 * 10**6)), 413, LARGE),
    # JSON
    "2,000,000 nested arrays": (lambda: post(b"[" * 2_000_000), 400, MALFORMED),
    "6,000 nested arrays": (lambda: post(b"[" * 3000 + b"]" * 3000), 400, MALFORMED),
    "4,000,000 empty arrays": (lambda: post(b"[" + b"[]," * 4_000_000 + b"1]"), 400, MALFORMED),
    "4,000,000 empty objects": (lambda: post(b"[" + b"{}," * 4_000_000 + b"1]"), 400, MALFORMED),
    "12 MB of numbers besides": (lambda: post(TEXT[:-1] + b',"x":[' + b"1," * 5_000_000 + b"1]}"), 200, ANY),
    "13 MB of JSON": (lambda: post(b" " * 13 * 2**20), 413, LARGE),
    "a number of a million digits": (lambda: post(b'{"inputs":' + b"9" * 10**6 + b"}"), 400, MALFORMED),
    "a number of 4,000 digits": (lambda: post(json_request(parameters={"seed": 10**3999})), 400, OPTION),
    "NaN": (lambda: post(json_request(parameters={"guidance": float("nan")})), 400, OPTION),
    "infinity": (lambda: post(json_request(parameters={"face_scale": float("inf")})), 400, OPTION),
    "no JSON": (lambda: post(os.urandom(1000)), 400, MALFORMED),
    "UTF-16": (lambda: post(TEXT.decode().encode("utf-16")), 200, ANY),
    "UTF-16 of half a character": (lambda: post(b"\xff\xfe\x00\xd8"), 400, MALFORMED),
    "an empty body": (lambda: post(b""), 400, MALFORMED),
    "a list": (lambda: post(b"[]"), 400, MALFORMED),
    "null": (lambda: post(b"null"), 400, MALFORMED),
    "an empty object": (lambda: post({}), 400, MALFORMED),
    "inputs that are none": (lambda: post(json_request(inputs=7)), 400, MALFORMED),
    "an input that is none": (lambda: post(json_request(inputs=[7, 8])), 400, MALFORMED),
    "10,000 inputs": (lambda: post(json_request(inputs=[{}] * 1000)), 400, MALFORMED),
    "one input twice": (lambda: post(json_request(inputs=[json_request()["inputs"][0]] * 2)), 400, MALFORMED),
    "outputs that are none": (lambda: post(json_request(outputs="video")), 400, MALFORMED),
    "an unknown output": (lambda: post(output("latents")), 400, MALFORMED),
    "an output twice": (lambda: post(json_request(outputs=[{"name": "video"}] * 2)), 400, MALFORMED),
    "an output without a name": (lambda: post(json_request(outputs=[{}])), 400, MALFORMED),
    "parameters that are none": (lambda: post(json_request(parameters=[])), 400, MALFORMED),
    "an id of half a character": (lambda: post(json_request(id="\ud800")), 400, MALFORMED),
    "an id that is none": (lambda: post(json_request(id={})), 400, MALFORMED),
    # Tensors
    "a negative shape": (lambda: post(shaped(-1)), 400, MALFORMED),
    "a shape of fractions": (lambda: post(tensor(shape=[3.0])), 400, MALFORMED),
    "a shape of truth": (lambda: post(tensor(shape=[True])), 400, MALFORMED),
    "a shape with more sizes": (lambda: post(shaped(1, 3)), 400, MALFORMED),
    "a shape without sizes": (lambda: post(shaped()), 400, MALFORMED),
    "a shape of 1,000,000 sizes": (lambda: post(shaped(*[1] * 1_000_000)), 400, MALFORMED),
    "a product that overflows": (lambda: post(shaped(2**32, 2**32, 0)), 400, MALFORMED),
    "another datatype": (lambda: post(tensor(datatype="FP32")), 400, MALFORMED),
    "a datatype of a megabyte": (lambda: post(tensor(datatype="F" * 2**20)), 400, MALFORMED),
    "a byte of 256": (lambda: post(tensor(data=[1, 2, 256])), 400, MALFORMED),
    "a byte of text": (lambda: post(tensor(data=["a", "b", "c"])), 400, MALFORMED),
    "bytes that are lists": (lambda: post(tensor(data=[[1], [2], [3]])), 400, MALFORMED),
    "no data": (lambda: post(tensor(data=None)), 400, MALFORMED),
    "shared memory": (lambda: post(tensor(parameters={"shared_memory_region": "x"})), 400, MALFORMED),
    "more binary data than there is": (lambda: binary(2**40), 400, MALFORMED),
    "less binary data than there is": (lambda: binary(2), 400, MALFORMED),
    "a negative size": (lambda: binary(-1), 400, MALFORMED),
    "a size of text": (lambda: binary("3"), 400, MALFORMED),
    "a header longer than the body": (lambda: binary(3, length=10**6), 413, LARGE),
    "a header's length of text": (lambda: binary(3, length="three"), 400, MALFORMED),
    "a negative header's length": (lambda: binary(3, length=-1), 400, MALFORMED),
    # Options
    "the door's own parameter": (lambda: post(json_request(parameters={"consisid_ticket": "a" * 32})), 400, OPTION),
    "a path as the door's parameter": (lambda: post(json_request(parameters={"consisid_ticket": "/x"})), 400, OPTION),
    "a name of a megabyte": (lambda: post(json_request(parameters={"a" * 2**20: 1})), 400, OPTION),
    "a parameter of null": (lambda: post(json_request(parameters={"steps": None})), 400, OPTION),
    "a name of half a character": (
        lambda: post(TEXT[:-1] + b',"parameters":{"\\ud800":1}}'), 400, OPTION,
    ),
    "half a character without a value": (
        lambda: post(TEXT[:-1] + b',"parameters":{"\\ud800":null}}'), 400, OPTION,
    ),
    "a model of half a character": (
        lambda: post(TEXT).replace(b"models/consisid", b"models/%ff%fe%ed%a0%80"), 404, MISSING,
    ),
    "a parameter that is a list": (lambda: post(json_request(parameters={"steps": [[1]]})), 400, OPTION),
    "a priority of text": (lambda: post(json_request(parameters={"priority": "high"})), 400, OPTION),
    "a negative timeout": (lambda: post(json_request(parameters={"timeout": -1})), 400, OPTION),
    "a lone surrogate": (lambda: post(TEXT.replace(b"a man", b"\\ud800")), 400, OPTION),
    "a NUL": (lambda: post(TEXT.replace(b"a man", b"a\\u0000man")), 400, OPTION),
    "a prompt of a megabyte": (lambda: post(json_request("a" * 2**20)), 400, OPTION),
    "a prompt of nothing": (lambda: post(json_request(" \u200b")), 400, "EMPTY_PROMPT"),
    # HTTP
    "compressed": (lambda: post(gzip.compress(TEXT), "Content-Encoding: gzip"), 400, MALFORMED),
    "two lengths": (lambda: post(TEXT, "Content-Length: 3"), 400, MALFORMED),
    "length and chunks": (lambda: post(TEXT, "Transfer-Encoding: chunked"), 400, MALFORMED),
    "a length of 2^63": (lambda: head(2**63) + b"abc", 400, MALFORMED),
    "a negative length": (lambda: head(-1) + b"abc", 400, MALFORMED),
    "a length of 200 MB that waits": (lambda: head(200 * 10**6, "Expect: 100-continue"), 413, LARGE),
    "a head of 10 MB": (lambda: b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 10**7 + b"\r\n\r\n", 431, LARGE),
    "a head of 17 KB": (lambda: b"GET /v2 HTTP/1.1\r\nX: " + b"a" * 17_000 + b"\r\n\r\n", 431, LARGE),
    "65 fields": (lambda: head(0, *[f"X{n}: a" for n in range(65)]), 431, LARGE),
    "100,000 fields": (lambda: head(0, *["X: a"] * 100_000), 431, LARGE),
    "a path of a megabyte": (lambda: b"GET /" + b"a" * 10**6 + b" HTTP/1.1\r\n\r\n", 431, LARGE),
    "pipelined": (lambda: (head(len(TEXT)) + TEXT) * 3, 400, MALFORMED),
    "a path with ..": (lambda: head(0, "Connection: close", path="/v2/models/..%2f..%2fetc"), 404, MISSING),
    "a path with two slashes": (lambda: head(0, "Connection: close", path="//v2/repository/index"), 404, MISSING),
    "a composing model": (lambda: post(TEXT).replace(b"models/consisid", b"models/second"), 404, MISSING),
    "shared memory's registry": (
        lambda: head(0, "Connection: close", path="/v2/systemsharedmemory/region/x/register"), 404, MISSING,
    ),
    "loading a model": (
        lambda: head(0, "Connection: close", path="/v2/repository/models/second/load"), 404, MISSING,
    ),
    "a tunnel": (lambda: b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 400, MALFORMED),
    "HTTP/2 without TLS": (lambda: b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(100), 400, MALFORMED),
    "random bytes": (lambda: os.urandom(4096), 400, MALFORMED),
    "a TLS greeting": (lambda: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + os.urandom(500), 400, MALFORMED),
    "an unknown method": (lambda: head(0, "Connection: close", method="BREW"), 400, MALFORMED),
}  # fmt: skip


@pytest.mark.parametrize(("make", "status", "code"), HTTP.values(), ids=HTTP)
def test_over_http(tiny_door: Door, make: Callable[[], bytes], status: int, code: Any) -> None:
    found = refusal(exchange(tiny_door.http_url, make()))
    assert found == (status, code if code is not ANY else "")
    assert refusal(exchange(tiny_door.http_url, post(json_request()))) == (200, "")


def raw(*contents: bytes) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        del request.raw_input_contents[:]
        request.raw_input_contents.extend(contents)

    return change


def parameters(count: int) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        for number in range(count):
            request.parameters[f"p{number}"].int64_param = 1

    return change


def contents(values: list[int]) -> Callable[[Any], None]:
    def change(request: Any) -> None:
        del request.raw_input_contents[:]
        request.inputs[0].contents.uint_contents.extend(values)
        request.inputs[1].contents.bytes_contents.append(b"a man")

    return change


def setting(path: str, value: Any) -> Callable[[Any], None]:
    """Sets a parameter: `steps.int64_param`, or one of the first input or output: `inputs.x.bool_param`."""

    def change(request: Any) -> None:
        *where, name, field = path.split(".")
        target = getattr(request, where[0])[0] if where else request
        setattr(target.parameters[name], field, value)

    return change


INVALID, EXHAUSTED = "INVALID_ARGUMENT", "RESOURCE_EXHAUSTED"
GRPC: dict[str, tuple[Callable[[Any], object], str, str]] = {
    # What ends Triton server 2.51, or holds it for a minute.
    "classification": (setting("outputs.classification.int64_param", 1), INVALID, MALFORMED),
    "a shape of 2^62": (lambda r: r.inputs[0].shape.__setitem__(0, 2**62), INVALID, MALFORMED),
    "40,000 parameters": (parameters(40_000), INVALID, MALFORMED),
    "65 parameters": (parameters(65), INVALID, MALFORMED),
    # Messages
    "200 MB": (raw(bytes(200 * 10**6), b"\1\0\0\0a"), EXHAUSTED, ""),
    "64 MiB and a byte": (
        lambda r: (raw(bytes(2**26 + 1), b"\1\0\0\0a")(r), r.inputs[0].shape.__setitem__(0, 2**26 + 1)),
        INVALID, "IMAGE_TOO_LARGE",
    ),
    "1,000,000 inputs": (lambda r: r.MergeFromString(b"\x2a\x00" * 1_000_000), INVALID, MALFORMED),
    "100 inputs": (lambda r: r.MergeFromString(b"\x2a\x00" * 100), INVALID, MALFORMED),
    "1,000,000 raw contents": (lambda r: r.MergeFromString(b"\x3a\x00" * 1_000_000), INVALID, MALFORMED),
    "an input with 200,000 parameters": (
        lambda r: [r.inputs[0].parameters[f"{n:x}"].Clear() for n in range(200_000)], EXHAUSTED, LARGE,
    ),
    "an input with 40,000 parameters": (
        lambda r: [r.inputs[0].parameters[f"{n:x}"].Clear() for n in range(40_000)], INVALID, MALFORMED,
    ),
    "shared memory": (setting("inputs.shared_memory_region.string_param", "x"), INVALID, MALFORMED),
    "one raw content": (raw(b"abc"), INVALID, MALFORMED),
    "a prompt without its length": (raw(b"abc", b"a man"), INVALID, MALFORMED),
    "a prompt of another length": (raw(b"abc", b"\xff\xff\xff\xffa man"), INVALID, MALFORMED),
    "two prompts": (raw(b"abc", b"\1\0\0\0a\1\0\0\0b"), INVALID, MALFORMED),
    "1,000,000 empty prompts": (raw(b"abc", bytes(4_000_000)), INVALID, MALFORMED),
    "an image of another size": (raw(b"abcd", b"\1\0\0\0a"), INVALID, MALFORMED),
    "a byte of 256": (contents([1, 2, 256]), INVALID, MALFORMED),
    "800,000 numbers": (contents([1] * 800_000), INVALID, MALFORMED),
    "2,000,000 numbers": (contents([1] * 2_000_000), EXHAUSTED, LARGE),
    "another datatype": (lambda r: setattr(r.inputs[0], "datatype", "FP64"), INVALID, MALFORMED),
    "no shape": (lambda r: r.inputs[0].ClearField("shape"), INVALID, MALFORMED),
    "a negative shape": (lambda r: r.inputs[0].shape.__setitem__(0, -3), INVALID, MALFORMED),
    "100,000 sizes": (lambda r: r.inputs[0].shape.extend([1] * 100_000), INVALID, MALFORMED),
    "an unknown input": (lambda r: setattr(r.inputs[0], "name", "latents"), INVALID, MALFORMED),
    "an unknown output": (lambda r: setattr(r.outputs[0], "name", "latents"), INVALID, MALFORMED),
    "an output twice": (lambda r: r.outputs.add(name="video"), INVALID, MALFORMED),
    "100 outputs": (lambda r: [r.outputs.add(name=f"{n}") for n in range(100)], INVALID, MALFORMED),
    "a composing model": (lambda r: setattr(r, "model_name", "second"), "NOT_FOUND", MISSING),
    "no model": (lambda r: setattr(r, "model_name", ""), "NOT_FOUND", MISSING),
    "another version": (lambda r: setattr(r, "model_version", "2"), "NOT_FOUND", MISSING),
    # Options
    "the door's own parameter": (setting("consisid_ticket.string_param", "a" * 32), INVALID, OPTION),
    "a parameter without a value": (lambda r: r.parameters["steps"].Clear(), INVALID, OPTION),
    "an unknown option": (setting("stepz.int64_param", 3), INVALID, OPTION),
    "NaN": (setting("guidance.double_param", float("nan")), INVALID, OPTION),
    "steps of text": (setting("steps.string_param", "3"), INVALID, OPTION),
    "a seed of 2^64 - 1": (setting("seed.uint64_param", 2**64 - 1), INVALID, OPTION),
    "a priority of truth": (setting("priority.bool_param", True), INVALID, OPTION),
    "a prompt that is not UTF-8": (raw(b"abc", b"\2\0\0\0\xff\xff"), INVALID, OPTION),
    "a prompt with NUL": (raw(b"abc", b"\3\0\0\0a\0b"), INVALID, OPTION),
    "a prompt of a megabyte": (raw(b"abc", (10**6).to_bytes(4, "little") + b"a" * 10**6), INVALID, OPTION),
    "no prompt": (raw(b"abc", b"\0\0\0\0"), INVALID, "EMPTY_PROMPT"),
}  # fmt: skip


@pytest.mark.parametrize(("change", "status", "code"), GRPC.values(), ids=GRPC)
def test_over_grpc(tiny_door: Door, change: Callable[[Any], object], status: str, code: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(tiny_door.grpc_url, grpc_request(change=change))
    assert refused.value.code().name == status, refused.value.details()
    assert refused.value.details().partition(": ")[0] == code or not code
    assert video(tiny_door) == b"abc"


METADATA = {"10 MB": "a" * 10**7, "60 KB": "a" * 60_000}


@pytest.mark.parametrize("value", METADATA.values(), ids=METADATA)
def test_metadata_over_grpc(tiny_door: Door, value: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        call(tiny_door.grpc_url, grpc_request(), metadata=(("x", value),))
    assert refused.value.code().name == EXHAUSTED
    assert video(tiny_door) == b"abc"


def test_a_compressed_bomb_over_grpc(tiny_door: Door) -> None:
    with grpc.insecure_channel(place_of(tiny_door), compression=grpc.Compression.Gzip, options=UNBOUNDED) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(grpc_request(change=raw(bytes(300 * 10**6), b"")), timeout=60)
    assert refused.value.code().name == EXHAUSTED
    assert video(tiny_door) == b"abc"


UNBOUNDED = [("grpc.max_send_message_length", -1)]


def place_of(door: Door) -> str:
    return door.grpc_url.partition("//")[2]


@pytest.mark.parametrize("method", ["ModelInfer", "ModelMetadata", "ModelReady"])
def test_bytes_that_are_no_message(tiny_door: Door, method: str) -> None:
    with grpc.insecure_channel(place_of(tiny_door)) as channel:
        path = f"/inference.GRPCInferenceService/{method}"
        for data in (b"\xff" * 100, os.urandom(50) + b"\xff", b"\x0a\xff", b"\x0b\x0c", b"\x0a" + b"\x80" * 20):
            with pytest.raises(grpc.RpcError, match=f"{MALFORMED}|{MISSING}"):
                channel.unary_unary(path)(data, timeout=30)
        with pytest.raises(grpc.RpcError, match=MALFORMED):
            channel.stream_unary(path)(iter(()), timeout=30)
    assert video(tiny_door) == b"abc"


@pytest.mark.parametrize("call", ["SystemSharedMemoryRegister", "RepositoryModelLoad", "TraceSetting", "LogSettings"])
def test_no_other_call_is_known(tiny_door: Door, call: str) -> None:
    with grpc.insecure_channel(place_of(tiny_door)) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            getattr(stub, call)(getattr(service_pb2, f"{call}Request")(), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNIMPLEMENTED


def test_random_bytes_at_the_port_of_grpc(tiny_door: Door) -> None:
    with socket.create_connection(place(tiny_door.grpc_url), timeout=10) as connection:
        connection.sendall(os.urandom(4096))
        while connection.recv(2**16):
            pass
    assert video(tiny_door) == b"abc"


def test_eight_at_once_leave_a_health_check_its_turn(tiny_door: Door) -> None:
    """40,000 parameters in each of eight requests took Triton server a minute of all cores."""
    data = post(json_request(parameters={f"p{n}": 1 for n in range(40_000)}))
    answers: list[bytes] = []
    threads = [threading.Thread(target=lambda: answers.append(exchange(tiny_door.http_url, data))) for _ in range(8)]
    for thread in threads:
        thread.start()
    health = exchange(tiny_door.http_url, head(0, "Connection: close", path="/v2/health/ready", method="GET"), 5)
    for thread in threads:
        thread.join()
    assert health.startswith(b"HTTP/1.1 200")
    assert {refusal(answer) for answer in answers} == {(400, MALFORMED)}
