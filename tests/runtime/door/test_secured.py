"""TLS, tokens, consent and signatures over both protocols; the log and the metrics say what happened and not what was
asked for."""

from __future__ import annotations

import io
import json
import logging
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
from door_requests import exchange, grpc_request, json_request, post
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2_grpc
from tritonclient.grpc import service_pb2_grpc

from consisid_runtime.door.access import Access
from consisid_runtime.door.door import Door
from consisid_runtime.door.records import writing
from consisid_runtime.mp4 import encode_mp4
from consisid_runtime.options import Options
from consisid_runtime.provenance.credentials import Credentials, Signer, check
from consisid_runtime.serve.private import make_certificate
from consisid_runtime.serve.tritonserver import TritonServer

pytestmark = pytest.mark.server

TOKEN = "a-token-of-some-length"
SECRET = "an unmistakable prompt"
BEARER = {"authorization": f"Bearer {TOKEN}"}
MP4 = encode_mp4(np.random.default_rng(0).integers(0, 255, (9, 32, 48, 3), np.uint8), 8)
"""The tiny models return the image as the video."""
REGISTER = "/the/register"
INFER = "/v2/models/consisid/infer"

asked_for: list[tuple[bytes, str, Options, str]] = []


def consent(image: bytes, prompt: str, options: Options, caller: str) -> Any:
    asked_for.append((image, prompt, options, caller))
    if prompt == "break":
        raise OSError(REGISTER)
    return {"refuse": "no consent of this person", "number": 5}.get(prompt)


@pytest.fixture(scope="module")
def log() -> io.StringIO:
    return io.StringIO()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    key, pem = make_certificate("localhost")
    (folder / "key.pem").write_bytes(key)
    (folder / "cert.pem").write_bytes(pem)
    return folder / "cert.pem"


@pytest.fixture(scope="module")
def secured(
    tiny_repository: Path,
    certificate: Path,
    signing_files: Path,
    log: io.StringIO,
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[Door]:
    (folder := tmp_path_factory.mktemp("token")).joinpath("token").write_text(TOKEN)
    access = Access.read(folder / "token", certificate, certificate.with_name("key.pem"))
    server = TritonServer(tiny_repository, private=True, ready_timeout=60)
    signer = Signer.read(signing_files / "cert.pem", signing_files / "key.pem")
    with writing(logging.StreamHandler(log)), Door(server, access=access, consent=consent, signer=signer) as door:
        yield door


@pytest.fixture
def credentials(signing_files: Path) -> Callable[[bytes], Credentials | None]:
    return lambda video: check(video, (signing_files / "authority.pem").read_bytes())


@pytest.fixture
def stub(secured: Door, certificate: Path) -> Iterator[Any]:
    with grpc.secure_channel(
        named(secured.grpc_url), grpc.ssl_channel_credentials(certificate.read_bytes())
    ) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def named(url: str) -> str:
    """The same port, by the name in the certificate."""
    return url.partition("//")[2].replace("127.0.0.1", "localhost")


def get(door: Door, certificate: Path, path: str, data: bytes | None = None, **headers: str) -> tuple[int, bytes]:
    context = ssl.create_default_context(cafile=str(certificate))
    request = urllib.request.Request(f"https://{named(door.http_url)}{path}", data, headers)
    try:
        with urllib.request.urlopen(request, timeout=20, context=context) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read()


def test_over_https(secured: Door, certificate: Path, log: io.StringIO) -> None:
    assert secured.http_url.startswith("https://") and secured.grpc_url.startswith("grpcs://")
    infer, body = INFER, json.dumps(json_request(SECRET, MP4)).encode()
    assert get(secured, certificate, "/v2/health/ready")[0] == 200
    for path, data in (("/v2", None), ("/metrics", None), ("/v2/models/consisid", None), (infer, body), ("/x", None)):
        assert get(secured, certificate, path, data)[0] == 401
        assert get(secured, certificate, path, data, authorization="Bearer another-token-of-some-length")[0] == 401
    status, answer = get(secured, certificate, infer, body, **BEARER, **{"x-request-id": "mine-7"})
    assert status == 200 and len(json.loads(answer)["outputs"][0]["data"]) > len(MP4)
    deadline = time.monotonic() + 5
    while "mine-7" not in log.getvalue() and time.monotonic() < deadline:  # written once the answer was taken
        time.sleep(0.01)
    lines = [json.loads(line) for line in log.getvalue().splitlines()]
    (line,) = (line for line in lines if line.get("request") == "mine-7")
    assert line["outcome"] == "OK" and line["protocol"] == "http" and line["peer"] == "127.0.0.1"
    assert line["bytes_received"] == len(body) and line["seconds"] >= line["seconds_queued"] >= 0
    assert SECRET not in log.getvalue() and TOKEN not in log.getvalue()


def test_plain_bytes_are_no_tls(secured: Door) -> None:
    assert b"200" not in exchange(secured.http_url, post(json_request()), 5)
    with grpc.insecure_channel(named(secured.grpc_url)) as channel, pytest.raises(grpc.RpcError) as refused:
        service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(grpc_request(), timeout=5)
    assert refused.value.code() is grpc.StatusCode.UNAVAILABLE


def test_tritonclient_over_tls(secured: Door, certificate: Path) -> None:
    context = ssl.create_default_context(cafile=str(certificate))
    with tritonclient.http.InferenceServerClient(
        named(secured.http_url), ssl=True, ssl_context_factory=lambda: context
    ) as client:
        assert client.is_server_ready() and client.is_model_ready("consisid", headers=BEARER)
    with tritonclient.grpc.InferenceServerClient(
        named(secured.grpc_url), ssl=True, root_certificates=str(certificate)
    ) as client:
        assert client.is_server_ready() and client.is_server_live()
        assert client.is_model_ready("consisid", headers=BEARER)
        with pytest.raises(tritonclient.grpc.InferenceServerException, match="UNAUTHENTICATED: "):
            client.get_model_metadata("consisid")


def test_a_call_without_the_token(secured: Door, certificate: Path, log: io.StringIO) -> None:
    credentials = grpc.ssl_channel_credentials(certificate.read_bytes())
    with grpc.secure_channel(named(secured.grpc_url), credentials) as channel:
        stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
        with pytest.raises(grpc.RpcError) as refused:
            stub.ModelInfer(grpc_request(SECRET), timeout=10)
        assert refused.value.code() is grpc.StatusCode.UNAUTHENTICATED
        with pytest.raises(grpc.RpcError, match="bearer token"):
            next(stub.ModelStreamInfer(iter([grpc_request(SECRET)]), timeout=10))
        with pytest.raises(grpc.RpcError, match="bearer token"):
            next(reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([]), timeout=10))
        health = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest(), timeout=10)
        assert next(health).status == health_pb2.HealthCheckResponse.SERVING, "health has no token"
        health.cancel()
        given = (*BEARER.items(), ("x-request-id", f"not a word {SECRET}"))
        answer, made = stub.ModelInfer.with_call(grpc_request(SECRET, MP4), timeout=10, metadata=given)
    assert len(answer.raw_output_contents[0]) > len(MP4)
    assert dict(made.trailing_metadata())["x-request-id"] in log.getvalue()
    assert SECRET not in log.getvalue()


def test_every_video_is_signed(
    secured: Door, certificate: Path, stub: Any, credentials: Callable[[bytes], Credentials | None]
) -> None:
    asked_for.clear()
    answer = stub.ModelInfer(grpc_request(image=MP4), timeout=20, metadata=(*BEARER.items(),))
    body = json.dumps(json_request(image=MP4, parameters={"seed": 4})).encode()
    (output,) = json.loads(get(secured, certificate, INFER, body, **BEARER)[1])["outputs"]
    for shape, video in (
        (list(answer.outputs[0].shape), answer.raw_output_contents[0]),
        (output["shape"], bytes(output["data"])),
    ):
        found = credentials(video)
        assert found is not None and found.state == "trusted"
        assert shape == [len(video)]
    assert asked_for == [(MP4, "a man", Options(), "127.0.0.1"), (MP4, "a man", Options(seed=4), "127.0.0.1")]


def test_what_cannot_be_signed_is_not_delivered(secured: Door, certificate: Path, stub: Any) -> None:
    status, text = get(secured, certificate, INFER, json.dumps(json_request(image=b"no mp4")).encode(), **BEARER)
    answer = json.loads(text)
    assert status == 500 and list(answer) == ["error"]
    assert answer["error"].startswith("SIGNING_FAILED: the video could not be signed; the server's log has it as error")
    with pytest.raises(grpc.RpcError, match="SIGNING_FAILED") as refused:
        stub.ModelInfer(grpc_request(), timeout=20, metadata=(*BEARER.items(),))
    assert refused.value.code() is grpc.StatusCode.INTERNAL
    no_video = json.dumps(json_request(outputs=[{"name": "info"}])).encode()
    status, text = get(secured, certificate, INFER, no_video, **BEARER)
    assert status == 200 and [output["name"] for output in json.loads(text)["outputs"]] == ["info"]


@pytest.mark.parametrize(
    ("prompt", "status", "code", "message"),
    [
        ("refuse", 403, grpc.StatusCode.PERMISSION_DENIED, "CONSENT_REFUSED: no consent of this person"),
        ("break", 500, grpc.StatusCode.INTERNAL, "HOOK_FAILED: consent could not be asked for; the server's log"),
        ("number", 500, grpc.StatusCode.INTERNAL, "HOOK_FAILED: the consent hook returned int"),
    ],
)
def test_without_consent_nothing_is_begun(
    secured: Door, certificate: Path, stub: Any, prompt: str, status: int, code: grpc.StatusCode, message: str
) -> None:
    def begun() -> list[bytes]:
        text = get(secured, certificate, "/metrics", **BEARER)[1]
        return [line for line in text.splitlines() if line.startswith(b'nv_inference_request_success{model="first"')]

    before = begun()
    found, text = get(secured, certificate, INFER, json.dumps(json_request(prompt, MP4)).encode(), **BEARER)
    error = json.loads(text)["error"]
    assert found == status and error.startswith(message) and REGISTER not in error
    with pytest.raises(grpc.RpcError) as refused:
        stub.ModelInfer(grpc_request(prompt, MP4), timeout=20, metadata=(*BEARER.items(),))
    assert refused.value.code() is code and refused.value.details().startswith(message)
    assert before and begun() == before


def test_metrics(secured: Door, certificate: Path) -> None:
    status, text = get(secured, certificate, "/metrics", **BEARER)
    assert status == 200
    for outcome, protocol in (("OK", "http"), ("UNAUTHENTICATED", "http"), ("UNAUTHENTICATED", "grpc")):
        assert f'consisid_requests_total{{outcome="{outcome}",protocol="{protocol}"}}'.encode() in text
    for name in ("consisid_queue_waiting 0.0", "consisid_server_up 1.0", "consisid_server_starts_total 1.0"):
        assert f"\n{name}\n".encode() in text
    assert b"\nconsisid_bytes_in_flight 0.0\n" in text
    assert b'nv_inference_request_success{model="second"' in text, "Triton server's own"
