"""Answers of other servers, and malformed ones, are typed errors that say what came."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import pytest
from tritonclient.grpc import service_pb2

from consisid_runtime import Client
from consisid_runtime.errors import ServerError, ServerUnreachable

Answering = Callable[[bytes], int]


def http(body: bytes | str, status: str = "200 OK", length: int | None = None, **headers: Any) -> bytes:
    data = body.encode() if isinstance(body, str) else body
    fields = {"Content-Length": len(data) if length is None else length, **headers}
    lines = [f"HTTP/1.1 {status}", *(f"{name}: {value}" for name, value in fields.items()), "", ""]
    return "\r\n".join(lines).encode() + data


def output(name: str, size: Any = 0, datatype: Any = "UINT8", shape: Any = (0,)) -> dict[str, Any]:
    return {"name": name, "datatype": datatype, "shape": shape, "parameters": {"binary_data_size": size}}


def triton(*outputs: Any, data: bytes = b"") -> bytes:
    header = json.dumps({"outputs": outputs}).encode()
    return http(header + data, **{"Inference-Header-Content-Length": len(header)})


INFO = output("info", 6, "BYTES", [1])
INFO_DATA = b"\x02\0\0\0{}"
SENT: dict[str, tuple[bytes, str]] = {
    "page": (http("<html>hello"), "did not answer as Triton server does: <html>hello"),
    "error page": (http("<html>oh no", "502 Bad Gateway"), "HTTP status 502: <html>oh no"),
    "redirect": (http("", "301 Moved", Location="http://elsewhere/"), "HTTP status 301: an empty body"),
    "no content": (b"HTTP/1.1 204 No Content\r\n\r\n", "HTTP status 204: an empty body"),
    "empty": (http(""), "did not answer as Triton server does: an empty body"),
    "json": (http('{"detail": "Not Found"}', "404 Not Found"), '404: {"detail": "Not Found"}'),
    "list": (http("[1, 2]"), "did not answer as Triton"),
    "null error": (http("null", "500 Oh"), "HTTP status 500: null"),
    "nested": (http("[" * 100_000), "did not answer as Triton"),
    "nested error": (http("[" * 100_000, "500 Oh"), "HTTP status 500"),
    "not utf-8": (http(b"\xff\xfe{}"), "did not answer as Triton"),
    "truncated": (http("{}", length=1000), "closed the connection in the middle of its answer"),
    "truncated chunk": (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nff\r\nabc",
        "closed the connection in the middle of its answer",
    ),
    "bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", "did not answer in HTTP"),
    "too long": (http("{}", length=2**40), "answered with more than 2147483647 bytes"),
    "http/2": (bytes.fromhex("000006040000000000000400ffffff"), "did not answer in HTTP"),
    "ssh": (b"SSH-2.0-OpenSSH_9.2\r\n", "did not answer in HTTP"),
    "long header": (b"HTTP/1.1 200 OK\r\nX: " + b"x" * 100_000, "did not answer in HTTP"),
    "headers": (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000, "did not answer in HTTP"),
    "no outputs": (triton(), r"without the output 'video'; it sent \[\]"),
    "no info": (triton(output("video")), r"without the output 'info'; it sent \['video'\]"),
    "other outputs": (triton(output("images")), r"without the output 'video'"),
    "dtype": (triton(output("video", 4, "FP32", [1]), data=b"1234"), r"'video' as float32 \[1\]; wanted UINT8"),
    "rank": (triton(output("video", 4, shape=[2, 2]), INFO, data=b"1234" + INFO_DATA), r"as uint8 \[2, 2\]; wanted"),
    "two infos": (
        triton(output("video", 1, shape=[1]), output("info", 12, "BYTES", [2]), data=b"1" + 2 * INFO_DATA),
        r"'info' as object \[2\]; wanted BYTES \[1\]",
    ),
    "shape": (triton(output("video", 4, shape=[5]), data=b"1234"), "did not answer as Triton"),
    "unknown dtype": (triton(output("video", 4, "FP8", [4]), data=b"1234"), "did not answer as Triton"),
    "size": (triton(output("video", 400, shape=[400]), data=b"1234"), "did not answer as Triton"),
    "negative size": (triton(output("video", -4, shape=[4]), data=b"1234"), "did not answer as Triton"),
    "size is text": (triton(output("video", "4", shape=[4]), data=b"1234"), "did not answer as Triton"),
    "data in JSON": (http(json.dumps({"outputs": [{"name": "video", "shape": [1], "data": [1]}]})), "as Triton"),
    "header length": (http("{}", **{"Inference-Header-Content-Length": "many"}), "did not answer as Triton"),
    "header beyond": (http("{}", **{"Inference-Header-Content-Length": 999}), "did not answer as Triton"),
    "text beyond": (triton(INFO, data=b"\xff\0\0\0{}"), "did not answer as Triton"),
    "no video": (triton(output("video"), INFO, data=INFO_DATA), "an empty video"),
    "info": (triton(output("video", 1, shape=[1]), INFO, data=b"1\x02\0\0\0[]"), r"not a JSON object: b'\[\]'"),
}  # fmt: skip


@pytest.mark.parametrize("name", SENT)
def test_http(answering: Answering, name: str) -> None:
    sent, message = SENT[name]
    with (
        Client(f"http://127.0.0.1:{answering(sent)}", timeout=10) as client,
        pytest.raises(ServerError, match=message) as caught,
    ):
        client.generate(b"photo", "a man")
    assert type(caught.value) is ServerError
    assert len(str(caught.value)) < 500


def test_a_connection_closed_without_an_answer(answering: Answering) -> None:
    with (
        Client(f"http://127.0.0.1:{answering(b'')}", timeout=10) as client,
        pytest.raises(ServerUnreachable, match="closed the connection before it had answered"),
    ):
        client.generate(b"photo", "a man")


def test_a_refusal_before_the_body_was_read(peer: Callable[..., int]) -> None:
    def refuse(connection: Any) -> None:
        connection.recv(1000)
        connection.sendall(http("too large", "413 Content Too Large"))

    with (
        Client(f"http://127.0.0.1:{peer(refuse)}", timeout=10) as client,
        pytest.raises(ServerError, match=r"413: too large|closed the connection"),
    ):
        client.generate(bytes(32 * 2**20), "a man")


def response(*tensors: tuple[str, str, list[int], bytes]) -> service_pb2.ModelInferResponse:
    made = service_pb2.ModelInferResponse()
    for name, datatype, shape, data in tensors:
        made.outputs.add(name=name, datatype=datatype, shape=shape)
        made.raw_output_contents.append(data)
    return made


VIDEO = ("video", "UINT8", [3], b"mp4")
RESPONSES: dict[str, tuple[Any, str]] = {
    "no outputs": (response(), r"without the output 'video'; it sent \[\]"),
    "no info": (response(VIDEO), "without the output 'info'"),
    "dtype": (response(("video", "FP32", [1], b"1234"), ("info", "BYTES", [1], INFO_DATA)), "'video' as float32"),
    "unknown dtype": (response(("video", "FP8", [1], b"12345678")), "wanted UINT8|did not answer as Triton"),
    "shape": (response(("video", "UINT8", [5], b"1234")), "did not answer as Triton"),
    "negative": (response(("video", "UINT8", [-2, -2], b"1234")), "did not answer as Triton"),
    "no text": (response(VIDEO, ("info", "BYTES", [1], b"\x02")), "did not answer as Triton"),
    "text beyond": (response(VIDEO, ("info", "BYTES", [1], b"\xff\0\0\0{}")), "as Triton|not a JSON object"),
    "info": (response(VIDEO, ("info", "BYTES", [1], b"\x02\0\0\0[]")), "not a JSON object"),
    "unimplemented": (grpc.StatusCode.UNIMPLEMENTED, "answered UNIMPLEMENTED: broken"),
    "permission": (grpc.StatusCode.PERMISSION_DENIED, "answered PERMISSION_DENIED: broken"),
    "cancelled": (grpc.StatusCode.CANCELLED, "answered CANCELLED: broken"),
    "unknown": (RuntimeError("raised"), "answered UNKNOWN: Exception calling application: raised"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("name", RESPONSES)
def test_grpc(stand_in: Callable[..., Any], unused_port: int, name: str) -> None:
    answer, message = RESPONSES[name]
    stand_in("grpc", unused_port, answer=answer)
    with Client(f"grpc://127.0.0.1:{unused_port}", timeout=10) as client, pytest.raises(ServerError, match=message):
        client.generate(b"photo", "a man")


def test_grpc_server_without_our_service(unused_port: int) -> None:
    from concurrent import futures

    served = grpc.server(futures.ThreadPoolExecutor(1))
    served.add_insecure_port(f"127.0.0.1:{unused_port}")
    served.start()
    with (
        Client(f"grpc://127.0.0.1:{unused_port}", timeout=10) as client,
        pytest.raises(ServerError, match="answered UNIMPLEMENTED"),
    ):
        client.generate(b"photo", "a man")
    served.stop(None).wait()


def test_the_command_names_an_info_of_another_version(
    stand_in: Callable[..., Any], unused_port: int, tmp_path: Path
) -> None:
    stand_in("http", unused_port)
    (tmp_path / "me.jpg").write_bytes(b"photo")
    code = "import sys; from consisid_runtime.cli.main import main; sys.argv = ['consisid', *sys.argv[1:]]; main()"
    url = f"http://127.0.0.1:{unused_port}"
    arguments = ["request", "--url", url, "--image", "me.jpg", "--prompt", "a man", "--out", "out.mp4"]
    done = subprocess.run([sys.executable, "-c", code, *arguments], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 6
    assert "SERVER_ERROR: out.mp4 was written, but the server's info is not that of this version" in done.stderr
    assert (tmp_path / "out.mp4").read_bytes() == b"photo"
