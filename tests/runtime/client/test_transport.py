"""The gRPC and HTTP transports against a Triton server of two small models, and against servers that fail."""

from __future__ import annotations

import asyncio
import http.client
import http.server
import json
import socket
import sys
import threading
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from consisid_runtime.client.connect import connect
from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import InvalidOption, NoFace, ServerError, ServerTimeout, ServerUnreachable
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.signatures import ENSEMBLE

SCHEMES = ("grpc", "http")
OUTPUTS = [port.name for port in ENSEMBLE.outputs]


@pytest.fixture(params=SCHEMES)
def transport(request: pytest.FixtureRequest, tiny_server: TritonServer) -> Transport:
    return connect(tiny_server.grpc_url if request.param == "grpc" else tiny_server.http_url)


def ask(
    transport: Transport, prompt: str = "a man", image: bytes = b"image", timeout: float = 60, **parameters: Any
) -> dict[str, NDArray[Any]]:
    inputs: dict[str, bytes | str] = {"image": image, "prompt": prompt}
    return asyncio.run(transport.infer(ENSEMBLE.name, inputs, parameters, OUTPUTS, timeout))


@pytest.mark.parametrize(
    "url",
    [
        "localhost:8001", "grpc://localhost", "https://host", "ws://host:443", "grpc://:8001", "http://host:port", "http://h:1/v2",
        "http://user@host:8000", "http://[::1", "",
    ],
)  # fmt: skip
def test_an_invalid_url_is_refused_with_the_two_forms(url: str) -> None:
    with pytest.raises(InvalidOption, match=r"grpc://host:port or http://host:port"):
        connect(url)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_an_unreachable_server(scheme: str) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        transport = connect(f"{scheme}://127.0.0.1:{unused.getsockname()[1]}")
        assert not asyncio.run(transport.ready(5))
        with pytest.raises(ServerUnreachable, match=rf"{scheme}://127.0.0.1:\d+.*[Cc]onnection refused"):
            ask(transport, timeout=0.5)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_that_does_not_answer(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        transport = connect(f"{scheme}://127.0.0.1:{silent.getsockname()[1]}")
        with pytest.raises(ServerTimeout, match=r"within 0\.2 s"):
            ask(transport, timeout=0.2)


@pytest.mark.parametrize(("status", "message"), [(502, "502: <html>a gateway"), (200, "did not answer as Triton")])
def test_http_responses_of_another_server(status: int, message: str) -> None:
    class Gateway(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.end_headers()
            self.wfile.write(b"<html>a gateway")

        def log_message(self, *_: object) -> None: ...

    with http.server.HTTPServer(("127.0.0.1", 0), Gateway) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with pytest.raises(ServerError, match=message):
            ask(connect(f"http://127.0.0.1:{server.server_port}"))
        thread.join()


@pytest.mark.server
def test_every_type_of_parameter_reaches_every_model(transport: Transport) -> None:
    options: dict[str, Any] = {
        "seed": 2**63 - 1,
        "guidance": 1.25,
        "dynamic_guidance": True,
        "negative_prompt": 'é "quoted" \n',
        "face_index": "only",
    }
    info = json.loads(ask(transport, prompt="héllo", **options)["info"][0])
    assert info["first"] == info["second"]
    assert {name: info["first"][name] for name in options} == options
    assert info["prompt"] == "héllo"


@pytest.mark.server
def test_tensors_arrive_unchanged(transport: Transport) -> None:
    image = bytes(range(256)) * 40_000
    answer = ask(transport, image=image)
    assert answer["video"].tobytes() == image
    assert answer["frames"].shape == (0, 480, 720, 3)


@pytest.mark.server
def test_a_full_video_of_raw_frames(transport: Transport) -> None:
    frames = ask(transport, raw_frames=True)["frames"]
    assert (frames.shape, frames.dtype) == ((49, 480, 720, 3), np.dtype(np.uint8))
    assert np.array_equal(frames.reshape(-1), np.arange(frames.size, dtype=np.uint8))


@pytest.mark.server
@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"stepz": 3}, "did you mean 'steps'"),
        ({"steps": 0}, "steps must be a whole number from 1 to 1000, got 0"),
        ({"frames": 10}, "frames must be 8k"),
        ({"guidance": float("nan")}, "guidance must be a finite number"),
        ({"raw_frames": 1}, "raw_frames must be true or false"),
        ({"x" * 100_000: 1}, "unknown option"),
    ],
    ids=["unknown", "range", "bundle", "nan", "raw_frames", "huge"],
)
def test_bad_options_are_typed_errors(transport: Transport, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidOption, match=message):
        ask(transport, **parameters)
    assert ask(transport)["video"].tobytes() == b"image"


@pytest.mark.server
@pytest.mark.parametrize("prompt", ["no face", "long"])
def test_errors_keep_their_type_and_message(transport: Transport, prompt: str) -> None:
    with pytest.raises(
        NoFace, match="no face in the 512×512 image; send a portrait" if prompt == "no face" else "x" * 1000
    ):
        ask(transport, prompt=prompt)
    assert ask(transport)["video"].tobytes() == b"image"


@pytest.mark.server
@pytest.mark.parametrize(("prompt", "status"), [("no face", 400), ("crash", 500)])
def test_the_http_status_distinguishes_bad_requests_from_failures(
    tiny_server: TritonServer, prompt: str, status: int
) -> None:
    address = tiny_server.http_url.removeprefix("http://")
    inputs = [
        {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [prompt]},
        {"name": "image", "datatype": "UINT8", "shape": [1], "data": [0]},
    ]
    connection = http.client.HTTPConnection(address, timeout=60)
    connection.request("POST", f"/v2/models/{ENSEMBLE.name}/infer", json.dumps({"inputs": inputs}))
    assert connection.getresponse().status == status
    connection.close()


@pytest.mark.server
@pytest.mark.parametrize(
    ("prompt", "status"), [("no face", grpc.StatusCode.INVALID_ARGUMENT), ("crash", grpc.StatusCode.INTERNAL)]
)
def test_the_grpc_status_distinguishes_bad_requests_from_failures(
    tiny_server: TritonServer, prompt: str, status: grpc.StatusCode
) -> None:
    transport = connect(tiny_server.grpc_url)
    with pytest.raises(Exception) as caught:
        ask(transport, prompt=prompt)
    assert caught.value.__cause__.code() is status  # type: ignore[union-attr]


@pytest.mark.server
def test_an_unexpected_failure_does_not_leak_details(transport: Transport) -> None:
    with pytest.raises(Exception, match=r"second failed; the server's log has it as error [0-9a-f]{8}") as caught:
        ask(transport, prompt="crash")
    assert caught.value.code == "INTERNAL"  # type: ignore[attr-defined]
    assert "secret" not in str(caught.value)


@pytest.mark.server
def test_timeout(transport: Transport) -> None:
    with pytest.raises(ServerTimeout):
        ask(transport, prompt="sleep 1", timeout=0.3)
    assert ask(transport)["video"].tobytes() == b"image"


@pytest.mark.server
def test_threads_share_a_transport(transport: Transport) -> None:
    answers: dict[int, bytes] = {}

    def work(number: int) -> None:
        answers[number] = ask(transport, image=bytes([number]) * 1000)["video"].tobytes()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: bytes([number]) * 1000 for number in range(8)}


@pytest.mark.server
def test_a_full_queue_refuses_requests(transport: Transport) -> None:
    outcomes: list[str] = []

    def work() -> None:
        try:
            ask(transport, prompt="sleep 0.2")
            outcomes.append("answered")
        except ServerError as error:
            outcomes.append(error.code)
            assert "Exceeds maximum queue size" in str(error)

    threads = [threading.Thread(target=work) for _ in range(60)]  # two models, each with a queue of 16
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(outcomes) == {"answered", "SERVER_ERROR"}
    assert outcomes.count("answered") >= 16


@pytest.mark.server
def test_the_models_run_in_this_environment(transport: Transport) -> None:
    version, prefix, numpy = json.loads(ask(transport)["info"][0])["python"]
    assert (version, Path(prefix), numpy) == (sys.version, Path(sys.prefix), np.__file__)
