"""KServe's JSON with binary tensors: requests as bytes, and answers as arrays. No input or output."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from consisid_runtime.client.answer import DTYPES, sent_error
from consisid_runtime.client.http.exchange import Request
from consisid_runtime.client.transport import Parameters
from consisid_runtime.errors import ConsisIDError, ServerError
from consisid_runtime.files.json_file import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = "inference-header-content-length"


def infer_request(
    model: str,
    inputs: Mapping[str, bytes | str],
    parameters: Parameters,
    outputs: Sequence[str],
    headers: Mapping[str, str],
    timeout: float,
) -> Request:
    """The request for inference; the server is told of the deadline by KServe's parameter `timeout`, in µs."""
    wanted = [{"name": name, "parameters": {"binary_data": True}} for name in outputs]
    return _request(f"/v2/models/{model}/infer", inputs, {"outputs": wanted}, parameters, headers, timeout)


def stream_request(
    model: str, inputs: Mapping[str, bytes | str], parameters: Parameters, headers: Mapping[str, str], timeout: float
) -> Request:
    """The same for a model that answers many times, as server-sent events."""
    fields = {**headers, "accept": "text/event-stream"}
    return _request(f"/v2/models/{model}/generate_stream", inputs, {}, parameters, fields, timeout)


def read_arrays(headers: Mapping[str, str], body: bytes, shown: str) -> dict[str, NDArray[Any]]:
    """The outputs of an answer. Raises `ServerError` for anything else than Triton server's."""
    try:
        return _arrays(body, int(headers.get(_LENGTH, len(body))))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ServerError(f"{shown} did not answer as Triton server does: {_beginning(body)}") from error


def read_error(status: int, headers: Mapping[str, str], body: bytes, shown: str) -> ConsisIDError:
    """The typed error of an answer that is none of success."""
    try:
        text = str(parse_json(body)["error"])
    except (ValueError, KeyError, TypeError):
        return ServerError(f"{shown} answered with HTTP status {status}: {_beginning(body)}")
    seconds = headers.get("retry-after", "")
    return sent_error(text, float(seconds) if seconds.isdecimal() else None)


def _request(
    path: str,
    inputs: Mapping[str, bytes | str],
    extra: Mapping[str, Any],
    parameters: Parameters,
    headers: Mapping[str, str],
    timeout: float,
) -> Request:
    body = {
        "inputs": [_tensor(name, value) for name, value in inputs.items()],
        **extra,
        "parameters": {**parameters, "timeout": max(1, int(timeout * 1e6))},
    }
    head = json.dumps(body).encode()
    # Triton server 2.51 ends at a body above 4 MB of curl's default type, application/x-www-form-urlencoded.
    fields = {_LENGTH: str(len(head)), "content-type": "application/octet-stream", **headers}
    return Request("POST", path, fields, [head, *(value for value in inputs.values() if isinstance(value, bytes))])


def _tensor(name: str, value: bytes | str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": name, "datatype": "BYTES", "shape": [1], "data": [value]}
    size = len(value)
    return {"name": name, "datatype": "UINT8", "shape": [size], "parameters": {"binary_data_size": size}}


def _arrays(answer: bytes, header: int) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    start = header
    for output in parse_json(answer[:header])["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        if not start <= end <= len(answer):
            raise ValueError("an output lies outside the body")
        if output["datatype"] == "BYTES":
            arrays[output["name"]] = _texts(answer[start:end], output["shape"])
        else:
            values = np.frombuffer(answer[start:end], DTYPES[output["datatype"]])
            arrays[output["name"]] = values.reshape(output["shape"])
        start = end
    return arrays


def _texts(data: bytes, shape: Sequence[int]) -> NDArray[np.object_]:
    """BYTES elements, each preceded by its length as four little-endian bytes."""
    texts, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if end > len(data):
            raise ValueError("a text is longer than its tensor")
        texts.append(data[start + 4 : end])
        start = end
    return np.array(texts, np.object_).reshape(shape)


def _beginning(body: bytes) -> str:
    return body[:200].decode(errors="replace") or "an empty body"
