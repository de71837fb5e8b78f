"""Requests as raw bytes and messages, and what comes back for them."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.door.door import Door
from consisid_runtime.serve.tritonserver import TritonServer


def place(url: str) -> tuple[str, int]:
    host, _, port = url.partition("//")[2].rpartition(":")
    return host, int(port)


def json_request(prompt: str = "a man", image: bytes = b"abc", **changes: Any) -> dict[str, Any]:
    """The least request over HTTP."""
    inputs = [
        {"name": "image", "datatype": "UINT8", "shape": [len(image)], "data": list(image)},
        {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [prompt]},
    ]
    return {"inputs": inputs, "outputs": [{"name": "video"}], **changes}


def head(size: int, *fields: str, path: str = "/v2/models/consisid/infer", method: str = "POST") -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: x", f"Content-Length: {size}", *fields, "", ""]
    return "\r\n".join(lines).encode()


def post(body: Any, *fields: str) -> bytes:
    """A whole HTTP request."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return head(len(content), "Connection: close", *fields) + content


def grpc_request(
    prompt: str = "a man", image: bytes = b"abc", change: Callable[[Any], object] = lambda request: None
) -> Any:
    """The least request over gRPC, changed."""
    text = prompt.encode()
    request = service_pb2.ModelInferRequest(
        model_name="consisid", raw_input_contents=[image, struct.pack("<I", len(text)) + text]
    )
    request.inputs.add(name="image", datatype="UINT8", shape=[len(image)])
    request.inputs.add(name="prompt", datatype="BYTES", shape=[1])
    request.outputs.add(name="video")
    change(request)
    return request


def exchange(url: str, data: bytes, wait: float = 20.0) -> bytes:
    """What comes back for these bytes: one whole answer, or all until the peer closes."""
    received = b""
    with socket.create_connection(place(url), timeout=wait) as connection:
        with contextlib.suppress(OSError):  # refused in the middle: the answer is read all the same
            connection.sendall(data)
        with contextlib.suppress(TimeoutError, ConnectionError):
            while not whole(received) and (piece := connection.recv(2**16)):
                received += piece
    return received


def whole(answer: bytes) -> bool:
    """Whether these bytes are a whole HTTP answer of known length."""
    fields, end, body = answer.partition(b"\r\n\r\n")
    length = re.search(rb"\r\ncontent-length: (\d+)", fields, re.IGNORECASE)
    return bool(end and length and len(body) >= int(length[1]))


def refusal(answer: bytes) -> tuple[int, str]:
    """Status and code of an HTTP answer; 0 and nothing for none. 100 Continue is passed over."""
    answer = answer.removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 "):
        return 0, ""
    status, body = int(answer.split()[1]), answer.partition(b"\r\n\r\n")[2]
    try:
        return status, str(json.loads(body)["error"]).partition(":")[0]
    except (ValueError, KeyError, TypeError):
        return status, ""


def call(url: str, request: Any, timeout: float = 30.0, metadata: Any = ()) -> Any:
    """One ModelInfer on a channel of its own. Raises `grpc.RpcError`."""
    options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
    with grpc.insecure_channel(url.partition("//")[2], options=options) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        return stub.ModelInfer(request, timeout=timeout, metadata=metadata)


def video(door: Door) -> bytes:
    """A request that succeeds, over gRPC: the door and the server live."""
    return bytes(call(door.grpc_url, grpc_request()).raw_output_contents[0])


def processes(server: TritonServer, name: str) -> list[int]:
    """Of one server, by the word that its shared memory's name puts on every command line."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            line = (path / "cmdline").read_text()
        except OSError:
            continue
        if server._leaves[1] in line and name in line.partition("\0")[0]:
            found.append(int(path.name))
    return found


def later(work: Callable[[], Any]) -> Callable[[], Any]:
    """Starts it in a thread; returns what waits for its result or exception."""
    found: list[Any] = []

    def run() -> None:
        try:
            found.append(work())
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=run)
    thread.start()

    def result() -> Any:
        thread.join(60)
        return found[0]

    return result
