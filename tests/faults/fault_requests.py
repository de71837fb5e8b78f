"""Requests whose videos are known beforehand, sent in every way that callers have, and what is wrong with an answer."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import grpc
from door_requests import place
from tritonclient.grpc import service_pb2_grpc

from consisid_runtime.client.message import infer_request
from consisid_runtime.errors import ConsisIDError, all_errors

VIDEO = "video"
PATIENCE = 120.0
"""Seconds until a request that is not answered counts as one that hangs."""
CODES = {kind.code for kind in all_errors()} - {ConsisIDError.code}
_OPTIONS = [
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),
    ("grpc.enable_retries", 0),
]

Parameters = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Known:
    """A request, and the SHA-256 of the MP4 that it makes; empty where it makes none."""

    name: str
    image: bytes
    prompt: str
    parameters: Parameters
    digest: str = ""

    def with_(self, **parameters: Any) -> Known:
        """The same with other parameters, and hence no known video."""
        return Known(self.name, self.image, self.prompt, {**self.parameters, **parameters})

    def urgent(self) -> Known:
        """The same video, before others."""
        return replace(self.with_(priority=1), digest=self.digest)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for one request.

    Attributes:
        ends: for each answer that ended it `VIDEO`, the code of an error, or how the connection ended.
        digest: of the video.
        seconds: from the first byte that was sent until the last that came.
        retry: seconds after which to come back, where the answer says so.
        text: of the error.
    """

    ends: tuple[str, ...]
    digest: str
    seconds: float
    retry: float | None = None
    text: str = ""

    @property
    def end(self) -> str:
        return self.ends[0] if len(self.ends) == 1 else f"{len(self.ends)} answers"


@dataclass(slots=True)
class _Found:
    """Collects one `Answer`."""

    ends: list[str] = field(default_factory=list)
    digest: str = ""
    retry: float | None = None
    text: str = ""
    began: float = field(default_factory=time.monotonic)

    def video(self, content: bytes) -> None:
        self.ends.append(VIDEO)
        self.digest = hashlib.sha256(content).hexdigest()

    def error(self, text: str, retry: float | None = None) -> None:
        self.ends.append(text.partition(":")[0])
        self.text, self.retry = text[:300], retry

    def answer(self) -> Answer:
        seconds = time.monotonic() - self.began
        return Answer(tuple(self.ends) or ("no answer",), self.digest, seconds, self.retry, self.text)


Listen = Callable[[dict[str, Any]], None]


def _nothing(event: dict[str, Any]) -> None:
    pass


def over_grpc(server: Any, asked: Known, identifier: str = "", listen: Listen = _nothing) -> Answer:
    """ModelInfer."""
    found, request = _Found(), message("consisid", asked)
    try:
        with stub(server) as service:
            answer = service.ModelInfer(request, timeout=PATIENCE, metadata=_metadata(identifier))
            found.video(answer.raw_output_contents[0])
    except grpc.RpcError as error:
        found.error(_text(error), _pushback(error))
    return found.answer()


def over_grpc_stream(server: Any, asked: Known, identifier: str = "", listen: Listen = _nothing) -> Answer:
    """ModelStreamInfer; `listen` is called with each event."""
    found, request = _Found(), message("consisid_stream", asked)
    try:
        with stub(server) as service:
            for part in service.ModelStreamInfer(iter([request]), timeout=PATIENCE, metadata=_metadata(identifier)):
                response = part.infer_response
                if part.error_message:
                    seconds = response.parameters["retry_after"].double_param or None
                    found.error(part.error_message, seconds)
                for tensor, raw in zip(response.outputs, response.raw_output_contents, strict=True):
                    if tensor.name == "event":
                        listen(json.loads(raw[4:]))
                    if tensor.name == "video":
                        found.video(raw)
    except grpc.RpcError as error:
        found.error(_text(error), _pushback(error))
    return found.answer()


def over_http(server: Any, asked: Known, identifier: str = "", listen: Listen = _nothing) -> Answer:
    """`infer`, with binary data."""
    prompt = asked.prompt.encode()
    text = len(prompt).to_bytes(4, "little") + prompt
    head = {
        "inputs": [_input("image", "UINT8", len(asked.image), asked.image), _input("prompt", "BYTES", 1, text)],
        "outputs": [{"name": "video", "parameters": {"binary_data": True}}],
        "parameters": dict(asked.parameters),
    }
    described = json.dumps(head).encode()
    fields = {"Inference-Header-Content-Length": str(len(described))}
    body = described + asked.image + text

    def read(response: http.client.HTTPResponse, found: _Found) -> None:
        content = response.read()
        if response.status == 200:
            found.video(content[int(response.headers["Inference-Header-Content-Length"]) :])
        else:
            _refused(response, content, found)

    return _exchange(server, "consisid/infer", body, fields, identifier, read)


def over_http_stream(server: Any, asked: Known, identifier: str = "", listen: Listen = _nothing) -> Answer:
    """`generate_stream`; `listen` is called with each event."""
    asked_for = {"image": base64.b64encode(asked.image).decode(), "prompt": asked.prompt, **asked.parameters}

    def read(response: http.client.HTTPResponse, found: _Found) -> None:
        if response.status != 200:
            _refused(response, response.read(), found)
            return
        for line in response:
            data = json.loads(line.removeprefix(b"data: ")) if line.startswith(b"data: ") else {}
            if "event" in data:
                listen(data["event"])
            if "video" in data:
                found.video(base64.b64decode(data["video"]))
            if "error" in data:
                found.error(data["error"], data.get("retry_after"))

    body = json.dumps(asked_for).encode()
    return _exchange(server, "consisid_stream/generate_stream", body, {}, identifier, read)


WAYS: dict[str, Callable[..., Answer]] = {
    "grpc": over_grpc,
    "http": over_http,
    "grpc stream": over_grpc_stream,
    "http stream": over_http_stream,
}


def wrong(asked: Known, answer: Answer, others: Iterable[Known], allowed: Iterable[str] = ()) -> str | None:
    """What should not be: no answer or several, another video, or an end that is neither a video nor in `allowed`."""
    if len(answer.ends) != 1 or answer.end == "no answer":
        return f"{asked.name}: answered {len(answer.ends)} times: {answer.ends}"
    if answer.end != VIDEO:
        return None if answer.end in allowed else f"{asked.name}: {answer.end}, {answer.text}"
    if answer.digest == asked.digest:
        return None
    whose = next((other.name for other in others if other.digest == answer.digest), "nobody")
    return f"{asked.name}: a video that is not its own, but that of {whose}"


def make_known(bundle: Path, images: Mapping[str, bytes]) -> list[Known]:
    """Six requests of one step, and their videos as a pipeline in this process makes them."""
    from consisid_runtime import Options, Pipeline

    pipeline = Pipeline.open(bundle)
    found = []
    for number in range(6):
        name = sorted(images)[number % len(images)]
        options = {"seed": number, "steps": 1, "frames": 9 if number < 5 else 17}
        prompt = ("a man reading by the sea", "a woman in a garden", "someone at a desk")[number // 2]
        video = pipeline.generate(images[name], prompt, Options(**options))
        digest = hashlib.sha256(video.mp4).hexdigest()
        found.append(Known(f"{name} {number}", images[name], prompt, options, digest))
    assert len({known.digest for known in found}) == len(found)
    return found


def message(model: str, asked: Known) -> Any:
    """Of gRPC."""
    outputs = ["video"] if model == "consisid" else ["event", "video"]
    return infer_request(model, {"image": asked.image, "prompt": asked.prompt}, asked.parameters, outputs)


@contextlib.contextmanager
def stub(server: Any) -> Iterator[Any]:
    """The service on a channel of its own: a caller shares none."""
    with grpc.insecure_channel(server.grpc_url.partition("//")[2], options=_OPTIONS) as channel:
        yield service_pb2_grpc.GRPCInferenceServiceStub(channel)


def _metadata(identifier: str) -> list[tuple[str, str]]:
    return [("x-request-id", identifier)] if identifier else []


def _text(error: Any) -> str:
    """`CODE: message`, or the status of an error of gRPC's own."""
    details = error.details() or ""
    return details if details.partition(":")[0] in CODES else f"gRPC {error.code().name}: {details}"


def _pushback(error: Any) -> float | None:
    found = dict(error.trailing_metadata() or ()).get("grpc-retry-pushback-ms")
    return None if found is None else int(found) / 1000


def _input(name: str, datatype: str, size: int, content: bytes) -> dict[str, Any]:
    sizes = {"binary_data_size": len(content)}
    return {"name": name, "datatype": datatype, "shape": [size], "parameters": sizes}


def _refused(response: http.client.HTTPResponse, content: bytes, found: _Found) -> None:
    retry = response.headers["Retry-After"]
    found.error(json.loads(content)["error"], None if retry is None else float(retry))


def _exchange(
    server: Any,
    path: str,
    body: bytes,
    fields: Mapping[str, str],
    identifier: str,
    read: Callable[[http.client.HTTPResponse, _Found], None],
) -> Answer:
    found = _Found()
    connection = http.client.HTTPConnection(*place(server.http_url), timeout=PATIENCE)
    headers = {**fields, **({"X-Request-Id": identifier} if identifier else {})}
    try:
        connection.request("POST", f"/v2/models/{path}", body, headers)
        read(connection.getresponse(), found)
    except (OSError, http.client.HTTPException) as error:
        found.error(f"HTTP {type(error).__name__}: {error}")
    finally:
        connection.close()
    return found.answer()
