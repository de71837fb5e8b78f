"""Every KServe client goes on to work through the door, and gets the bytes that Triton server itself answers with."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import urllib.error
import urllib.request
from collections.abc import Callable
from typing import Any

import grpc
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc
from tritonclient.utils import InferenceServerException

from consisid_runtime.client.client import Client
from consisid_runtime.door.door import Door
from consisid_runtime.errors import InvalidOption, NoFace
from consisid_runtime.options import Options
from consisid_runtime.serve.tritonserver import TritonServer

pytestmark = pytest.mark.server

PHOTO = bytes(range(256)) * 40
PROMPT = "ein Mädchen läuft, 海"
PARAMETERS = {"steps": 3, "frames": 9, "height": 32, "width": 48, "guidance": 2, "raw_frames": True}
OUTPUTS = ("video", "frames", "info")


def authority(url: str) -> str:
    return url.partition("//")[2]


def tensors(module: Any, *, binary: bool = True) -> dict[str, Any]:
    """The arguments of `infer`."""
    image, prompt = module.InferInput("image", [len(PHOTO)], "UINT8"), module.InferInput("prompt", [1], "BYTES")
    more = {} if module is tritonclient.grpc else {"binary_data": binary}
    image.set_data_from_numpy(np.frombuffer(PHOTO, np.uint8), **more)
    prompt.set_data_from_numpy(np.array([PROMPT.encode()], np.object_), **more)
    outputs = [module.InferRequestedOutput(name, **more) for name in OUTPUTS]
    return {"model_name": "consisid", "inputs": [image, prompt], "outputs": outputs, "parameters": PARAMETERS}


def arrays(result: Any) -> dict[str, Any]:
    """As lists; texts come as bytes or, from JSON, as text."""
    found = {name: result.as_numpy(name).tolist() for name in OUTPUTS}
    return found | {"info": [text if isinstance(text, str) else text.decode() for text in found["info"]]}


def by_http(url: str, *, binary: bool = True) -> Any:
    with tritonclient.http.InferenceServerClient(authority(url)) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("consisid")
        return arrays(client.infer(**tensors(tritonclient.http, binary=binary), request_id="some id", priority=2))


def by_grpc(url: str) -> Any:
    with tritonclient.grpc.InferenceServerClient(authority(url)) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready("consisid", "1")
        result = client.infer(**tensors(tritonclient.grpc), request_id="some id", priority=1, timeout=60_000_000)
        assert result.get_response().id == "some id"
        return arrays(result)


def by_http_aio(url: str) -> Any:
    async def ask() -> Any:
        async with tritonclient.http.aio.InferenceServerClient(authority(url)) as client:
            assert await client.is_server_ready() and await client.is_model_ready("consisid")
            return arrays(await client.infer(**tensors(tritonclient.http)))

    return asyncio.run(ask())


def by_grpc_aio(url: str) -> Any:
    async def ask() -> Any:
        async with tritonclient.grpc.aio.InferenceServerClient(authority(url)) as client:
            assert await client.is_server_ready() and await client.is_model_ready("consisid")
            return arrays(await client.infer(**tensors(tritonclient.grpc)))

    return asyncio.run(ask())


CALLS: dict[str, tuple[Callable[[str], Any], str]] = {
    "http": (by_http, "http_url"),
    "http json": (lambda url: by_http(url, binary=False), "http_url"),
    "http.aio": (by_http_aio, "http_url"),
    "grpc": (by_grpc, "grpc_url"),
    "grpc.aio": (by_grpc_aio, "grpc_url"),
}


@pytest.fixture(scope="module")
def expected(tiny_server: TritonServer) -> Any:
    return by_grpc(tiny_server.grpc_url)


@pytest.mark.parametrize(("call", "url"), CALLS.values(), ids=CALLS)
def test_tritonclient(tiny_door: Door, expected: Any, call: Callable[[str], Any], url: str) -> None:
    got = call(getattr(tiny_door, url))
    assert got == expected
    assert bytes(got["video"]) == PHOTO and len(got["frames"]) == 9
    assert json.loads(got["info"][0])["prompt"] == PROMPT


@pytest.mark.parametrize("url", ["grpc_url", "http_url"])
def test_our_client_and_the_models_own_errors(tiny_door: Door, tiny_server: TritonServer, url: str) -> None:
    options = Options(seed=7, steps=2, frames=9, height=32, width=32, negative_prompt="blur", face_index="only")
    with Client(getattr(tiny_door, url), timeout=30) as client, Client(getattr(tiny_server, url), timeout=30) as other:
        assert client.ready()
        one, two = (c.generate(PHOTO, PROMPT, options, raw_frames=True) for c in (client, other))
        assert one.mp4 == two.mp4 and np.array_equal(one.frames, two.frames) and one.info == two.info
        for prompt, chosen, kind in (("no face", options, NoFace), ("a man", Options(frames=8), InvalidOption)):
            messages = []
            for called in (client, other):
                with pytest.raises(kind) as caught:
                    called.generate(PHOTO, prompt, chosen)
                messages.append(str(caught.value))
            assert messages[0] == messages[1]


def get(url: str, data: bytes | None = None, **headers: str) -> tuple[int, Any]:
    request = urllib.request.Request(url, data, {name.replace("_", "-"): value for name, value in headers.items()})
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, json.loads(answer.read() or b"null")
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.loads(error.read())


def test_the_model_is_described_as_triton_server_does(tiny_door: Door, tiny_server: TritonServer) -> None:
    for path in ("/v2/models/consisid", "/v2/models/consisid/versions/1"):
        assert get(tiny_door.http_url + path) == get(tiny_server.http_url + path)
    for url in (tiny_door.grpc_url, tiny_server.grpc_url):
        with tritonclient.grpc.InferenceServerClient(authority(url)) as client:
            assert client.get_model_metadata("consisid", as_json=True) == tritonclient.grpc.InferenceServerClient(
                authority(tiny_server.grpc_url)
            ).get_model_metadata("consisid", as_json=True)
    _, here = get(f"{tiny_door.http_url}/v2/models/consisid/config")
    _, there = get(f"{tiny_server.http_url}/v2/models/consisid/config")
    for side in ("input", "output"):
        assert here[side] == [{name: port[name] for name in ("name", "data_type", "dims")} for port in there[side]]
    with tritonclient.grpc.InferenceServerClient(authority(tiny_door.grpc_url)) as client:
        assert client.get_model_config("consisid").config.input[0].dims == [-1]
        assert [model.name for model in client.get_model_repository_index().models] == ["consisid", "consisid_stream"]
        assert client.get_server_metadata().name == "consisid"
    assert get(f"{tiny_door.http_url}/v2/repository/index", b"")[1][0]["state"] == "READY"
    assert get(f"{tiny_door.http_url}/v2/models/consisid/ready") == (200, {"name": "consisid", "ready": True})


def test_composing_models_are_hidden(tiny_door: Door) -> None:
    for path in ("/v2/models/second", "/v2/models/second/config", "/v2/models/consisid/versions/2", "/v2/models/stats"):
        status, answer = get(tiny_door.http_url + path)
        assert status == 404 and answer["error"].startswith("NOT_FOUND: ")
    with tritonclient.grpc.InferenceServerClient(authority(tiny_door.grpc_url)) as client:
        with pytest.raises(InferenceServerException, match="NOT_FOUND: there is no model 'second'"):
            client.get_model_metadata("second")
        with pytest.raises(InferenceServerException, match="UNIMPLEMENTED"):
            client.get_inference_statistics()


def test_grpcs_own_health_check(tiny_door: Door) -> None:
    with grpc.insecure_channel(authority(tiny_door.grpc_url)) as channel:
        stub = health_pb2_grpc.HealthStub(channel)
        assert stub.Check(health_pb2.HealthCheckRequest(), timeout=10).status == health_pb2.HealthCheckResponse.SERVING


@pytest.mark.parametrize("version", ["v1", "v1alpha"])
def test_grpcs_reflection_describes_the_service(tiny_door: Door, version: str) -> None:
    """What grpcurl asks for; it tries v1 first."""

    def ask(*questions: Any) -> list[Any]:
        with grpc.insecure_channel(authority(tiny_door.grpc_url)) as channel:
            call = channel.stream_stream(f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo")
            answers = list(call(iter([question.SerializeToString() for question in questions]), timeout=10))
        return [reflection_pb2.ServerReflectionResponse.FromString(answer) for answer in answers]

    question = reflection_pb2.ServerReflectionRequest
    service = "inference.GRPCInferenceService"
    listed, found, unknown, nothing = ask(
        question(list_services=""), question(file_containing_symbol=service), question(file_by_filename="/etc/passwd"),
        question(),
    )  # fmt: skip
    assert service in [one.name for one in listed.list_services_response.service]
    pool = descriptor_pool.DescriptorPool()
    for file in reversed(found.file_descriptor_response.file_descriptor_proto):
        pool.AddSerializedFile(file)
    assert "ModelStreamInfer" in pool.FindServiceByName(service).methods_by_name
    assert unknown.error_response.error_code == 5 and nothing.error_response.error_code == 3
    with pytest.raises(grpc.RpcError, match="at most 256 questions"):
        ask(*[question(list_services="")] * 300)
    with pytest.raises(grpc.RpcError, match="at most 4096 bytes"):
        ask(question(file_by_filename="x" * 5000))


def test_json_alone(tiny_door: Door) -> None:
    """The least that KServe's protocol allows: everything as JSON, no outputs named; and an id that comes back."""
    inputs = [
        {"name": "image", "datatype": "UINT8", "shape": [3], "data": [1, 2, 255]},
        {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": [PROMPT]},
    ]
    request = {"id": "x", "inputs": inputs, "parameters": PARAMETERS}
    status, answer = get(f"{tiny_door.http_url}/v2/models/consisid/versions/1/infer", json.dumps(request).encode())
    assert (status, answer["id"], answer["model_name"], answer["model_version"]) == (200, "x", "consisid", "1")
    found = {output["name"]: output for output in answer["outputs"]}
    assert found["video"]["data"] == [1, 2, 255] and found["frames"]["shape"] == [9, 32, 48, 3]
    assert found["frames"]["data"] == [value % 256 for value in range(9 * 32 * 48 * 3)]
    assert json.loads(found["info"]["data"][0])["prompt"] == PROMPT


def test_one_output_binary_and_one_as_json(tiny_door: Door) -> None:
    inputs = [
        {"name": "image", "datatype": "UINT8", "shape": [3], "data": [1, 2, 255]},
        {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a man"]},
    ]
    outputs = [{"name": "video"}, {"name": "info", "parameters": {"binary_data": True}}]
    body = json.dumps({"inputs": inputs, "outputs": outputs}).encode()
    url = f"{tiny_door.http_url}/v2/models/consisid/infer"
    with urllib.request.urlopen(urllib.request.Request(url, body), timeout=30) as answer:
        length, content = int(answer.headers["Inference-Header-Content-Length"]), answer.read()
    found = {output["name"]: output for output in json.loads(content[:length])["outputs"]}
    assert found["video"]["data"] == [1, 2, 255]
    assert json.loads(content[length + 4 :])["prompt"] == "a man"
    assert found["info"]["parameters"] == {"binary_data_size": len(content) - length}


def test_kserves_own_parameters_of_tensors_are_tolerated_over_grpc(tiny_door: Door) -> None:
    request = service_pb2.ModelInferRequest(model_name="consisid")
    image = request.inputs.add(name="image", datatype="UINT8", shape=[2])
    image.contents.uint_contents.extend([7, 255])
    image.parameters["binary_data_size"].int64_param = 2
    request.inputs.add(name="prompt", datatype="BYTES", shape=[1]).contents.bytes_contents.append(b"a man")
    with grpc.insecure_channel(authority(tiny_door.grpc_url)) as channel:
        answer = service_pb2_grpc.GRPCInferenceServiceStub(channel).ModelInfer(request, timeout=30)
    assert answer.raw_output_contents[[output.name for output in answer.outputs].index("video")] == b"\x07\xff"


@pytest.mark.skipif(shutil.which("curl") is None, reason="needs curl")
def test_curls_default_type_and_five_megabytes(tiny_door: Door, tmp_path: Any) -> None:
    """That ends Triton server 2.51 itself."""
    image = bytes(5 * 10**6)
    inputs = [
        {"name": "image", "datatype": "UINT8", "shape": [len(image)], "parameters": {"binary_data_size": len(image)}},
        {"name": "prompt", "datatype": "BYTES", "shape": [1], "data": ["a man"]},
    ]
    head = json.dumps({"inputs": inputs, "outputs": [{"name": "info"}]}).encode()
    (tmp_path / "body").write_bytes(head + image)
    url = f"{tiny_door.http_url}/v2/models/consisid/infer"
    command = ["curl", "-sS", "--data-binary", f"@{tmp_path / 'body'}", url]
    command += ["-H", f"Inference-Header-Content-Length: {len(head)}"]
    done = subprocess.run(command, capture_output=True, check=True)
    assert json.loads(done.stdout)["outputs"][0]["name"] == "info"
