"""Peers on loopback that are no server of ours, or fail as one."""

from __future__ import annotations

import base64
import http.server
import json
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from concurrent import futures
from contextlib import ExitStack, suppress
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.errors import Busy, ConsisIDError

Behaviour = Callable[[socket.socket], None]


def never_answer(peer: socket.socket) -> None:
    while peer.recv(2**16):
        pass


def trickle(peer: socket.socket) -> None:
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b" " * 1000:
        peer.sendall(bytes([byte]))
        time.sleep(0.05)


def trickle_the_body(peer: socket.socket) -> None:
    peer.recv(2**16)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    for _ in range(1000):
        peer.sendall(b" ")
        time.sleep(0.05)


def trickle_http2(peer: socket.socket) -> None:
    """Valid HTTP/2: settings and then pings, never an answer."""
    peer.sendall(bytes.fromhex("000000040000000000"))
    for number in range(1000):
        peer.sendall(bytes.fromhex("000008060000000000") + struct.pack(">Q", number))
        time.sleep(0.05)


def continue_for_ever(peer: socket.socket) -> None:
    while True:
        peer.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        time.sleep(0.01)


def read_nothing(peer: socket.socket) -> None:
    time.sleep(20)


def half_open(peer: socket.socket) -> None:
    """Ends its own direction after the beginning of an answer, and keeps the other."""
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-")
    peer.shutdown(socket.SHUT_WR)
    never_answer(peer)


def reset(peer: socket.socket) -> None:
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def garbage(peer: socket.socket) -> None:
    peer.sendall(bytes(range(256)) * 100)
    peer.recv(2**16)


def answer_late(peer: socket.socket) -> None:
    peer.recv(2**16)
    time.sleep(2)
    peer.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")


BEHAVIOURS: dict[str, Behaviour] = {
    kind.__name__: kind
    for kind in (
        never_answer, trickle, trickle_the_body, trickle_http2, continue_for_ever, read_nothing, half_open, reset,
        garbage, answer_late,
    )
}  # fmt: skip


@pytest.fixture
def peer() -> Iterator[Callable[[str | Behaviour], int]]:
    """Starts a peer that does the same with every connection: a function above, by its name; returns its port."""
    with ExitStack() as stack:

        def start(behaviour: str | Behaviour) -> int:
            behave = BEHAVIOURS[behaviour] if isinstance(behaviour, str) else behaviour
            listener = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
            accepted: list[socket.socket] = []

            def serve(connection: socket.socket) -> None:
                with connection, suppress(OSError):
                    behave(connection)

            def accept() -> None:
                with suppress(OSError):
                    while True:
                        accepted.append(listener.accept()[0])
                        threading.Thread(target=serve, args=accepted[-1:], daemon=True).start()

            def stop() -> None:
                for open_socket in (listener, *accepted):
                    with suppress(OSError):
                        open_socket.shutdown(socket.SHUT_RDWR)

            threading.Thread(target=accept, daemon=True).start()
            stack.callback(stop)
            return int(listener.getsockname()[1])

        yield start


@pytest.fixture
def answering(peer: Callable[[str | Behaviour], int]) -> Callable[[bytes], int]:
    """Starts a peer that reads a request's header and sends these bytes; returns its port."""

    def start(sent: bytes) -> int:
        def behave(connection: socket.socket) -> None:
            received = b""
            while b"\r\n\r\n" not in received and (piece := connection.recv(2**16)):
                received += piece
            connection.sendall(sent)
            connection.shutdown(socket.SHUT_WR)
            never_answer(connection)

        return peer(behave)

    return start


class StandIn(service_pb2_grpc.GRPCInferenceServiceServicer):
    """Answers as our server does, with the image as the video; or with a response, a status, or an exception."""

    def __init__(self, answer: Any) -> None:
        self._answer = answer

    def ServerLive(self, request: Any, context: Any) -> service_pb2.ServerLiveResponse:
        return service_pb2.ServerLiveResponse(live=True)

    def ServerReady(self, request: Any, context: Any) -> service_pb2.ServerReadyResponse:
        return service_pb2.ServerReadyResponse(ready=True)

    def ModelInfer(self, request: Any, context: Any) -> service_pb2.ModelInferResponse:
        if isinstance(self._answer, grpc.StatusCode):
            context.abort(self._answer, "broken")
        if isinstance(self._answer, Exception):
            raise self._answer
        if self._answer is not None:
            return self._answer
        response = service_pb2.ModelInferResponse()
        image = request.raw_input_contents[0]
        response.outputs.add(name="video", datatype="UINT8", shape=[len(image)])
        response.outputs.add(name="info", datatype="BYTES", shape=[1])
        response.raw_output_contents.extend([image, b"\x02\0\0\0{}"])
        return response


class HttpStandIn(http.server.BaseHTTPRequestHandler):
    """The same over HTTP."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        image = body[int(self.headers["Inference-Header-Content-Length"]) :]
        outputs = [
            {
                "name": "video",
                "datatype": "UINT8",
                "shape": [len(image)],
                "parameters": {"binary_data_size": len(image)},
            },
            {"name": "info", "datatype": "BYTES", "shape": [1], "parameters": {"binary_data_size": 6}},
        ]
        header = json.dumps({"outputs": outputs}).encode()
        self.send_response(200)
        self.send_header("Inference-Header-Content-Length", str(len(header)))
        self.end_headers()
        self.wfile.write(header + image + b"\x02\0\0\0{}")

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def unused_port() -> int:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return int(unused.getsockname()[1])


@pytest.fixture
def stand_in() -> Iterator[Callable[..., Callable[[], object]]]:
    """Starts a server that answers with the image as its video, for a scheme, on a port; returns what stops it."""
    with ExitStack() as stack:

        def start(scheme: str, port: int, host: str = "127.0.0.1", answer: Any = None) -> Callable[[], object]:
            if scheme == "grpc":
                served = grpc.server(futures.ThreadPoolExecutor(4))
                service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(StandIn(answer), served)
                served.add_insecure_port(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
                served.start()
                stack.callback(lambda: served.stop(None).wait())
                return lambda: served.stop(None).wait()
            kind = type("Server", (http.server.ThreadingHTTPServer,), {
                "address_family": socket.AF_INET6 if ":" in host else socket.AF_INET,
            })  # fmt: skip
            web = kind((host, port), HttpStandIn)
            stack.callback(web.server_close)
            threading.Thread(target=web.serve_forever, args=(0.05,)).start()
            stack.callback(web.shutdown)
            return lambda: (web.shutdown(), web.server_close())

        yield start


Step = dict[str, bytes] | ConsisIDError | threading.Event
"""What a streaming stand-in does next: send these outputs, send an error, or wait until the caller left and tell so."""


@pytest.fixture
def streaming(unused_port: int) -> Iterator[Callable[[str, list[Step]], str]]:
    """Starts a server that answers each stream with these steps; returns its URL."""
    with ExitStack() as stack:

        def start(scheme: str, steps: list[Step]) -> str:
            if scheme == "grpc":
                served = grpc.server(futures.ThreadPoolExecutor(4))
                service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(GrpcStreams(steps), served)
                served.add_insecure_port(f"127.0.0.1:{unused_port}")
                served.start()
                stack.callback(lambda: served.stop(None).wait())
            else:
                kind = type("Streams", (HttpStreams,), {"steps": steps})
                web = http.server.ThreadingHTTPServer(("127.0.0.1", unused_port), kind)
                stack.callback(web.server_close)
                threading.Thread(target=web.serve_forever, args=(0.05,)).start()
                stack.callback(web.shutdown)
            return f"{scheme}://127.0.0.1:{unused_port}"

        yield start


class GrpcStreams(StandIn):
    def __init__(self, steps: list[Step]) -> None:
        super().__init__(None)
        self._steps = steps

    def ModelStreamInfer(self, requests: Any, context: Any) -> Iterator[service_pb2.ModelStreamInferResponse]:
        request = next(requests)
        # First of all: of a caller who leaves as a response is sent, gRPC asks for no further one.
        for step in self._steps:
            if isinstance(step, threading.Event) and not context.add_callback(step.set):
                step.set()
        for step in self._steps:
            if isinstance(step, threading.Event):
                step.wait(20)
                return
            if isinstance(step, ConsisIDError):
                response = service_pb2.ModelInferResponse()
                if isinstance(step, Busy) and step.retry_after:
                    response.parameters["retry_after"].double_param = step.retry_after
                yield service_pb2.ModelStreamInferResponse(error_message=step.wire(), infer_response=response)
                return
            response = service_pb2.ModelInferResponse()
            for name, data in step.items():
                if name not in {output.name for output in request.outputs}:
                    continue
                text = name in ("event", "info")
                response.outputs.add(
                    name=name, datatype="BYTES" if text else "UINT8", shape=[1] if text else [len(data)]
                )
                response.raw_output_contents.append((struct.pack("<I", len(data)) if text else b"") + data)
            yield service_pb2.ModelStreamInferResponse(infer_response=response)


class HttpStreams(HttpStandIn):
    steps: list[Step]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        sent = json.loads(body[: int(self.headers["Inference-Header-Content-Length"])])
        if isinstance(self.steps[0], Busy):
            content = json.dumps({"error": self.steps[0].wire()}).encode()
            self.send_response(503)
            self.send_header("Retry-After", f"{self.steps[0].retry_after:.0f}")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)
            return
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        for step in self.steps:
            if isinstance(step, threading.Event):
                with suppress(OSError):
                    while True:
                        self.wfile.write(b": nothing new\n\n")
                        time.sleep(0.02)
                step.set()
                return
            event: dict[str, Any] = {"error": step.wire()} if isinstance(step, ConsisIDError) else {}
            for name, data in step.items() if isinstance(step, dict) else ():
                optional = {"preview": "previews", "checkpoint": "checkpoint_seconds"}.get(name)
                if optional is None or optional in sent["parameters"]:
                    event[name] = json.loads(data) if name in ("event", "info") else base64.b64encode(data).decode()
            text = f"data: {json.dumps(event)}\r\n\r\n".encode()
            # In two pieces, cut anywhere.
            self.wfile.write(text[: len(text) // 2])
            self.wfile.flush()
            self.wfile.write(text[len(text) // 2 :])
