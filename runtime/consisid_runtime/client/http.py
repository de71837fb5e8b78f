"""The HTTP transport: KServe's JSON with its binary tensor data extension.

It uses the standard library and opens one connection a call, which makes it thread-safe; tritonclient's HTTP client, on
gevent, is not.
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from consisid_runtime.client.transport import Parameters
from consisid_runtime.errors import ServerError, ServerTimeout, ServerUnreachable, from_wire

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = "Inference-Header-Content-Length"
_READY_TIMEOUT = 10.0
"""Seconds."""
_DTYPES = {"UINT8": np.uint8, "FP32": np.float32, "INT64": np.int64}


class HttpTransport:
    """A `Transport` over HTTP/1.1 with one connection a call."""

    def __init__(self, address: str) -> None:
        self._address = address

    def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
    ) -> dict[str, NDArray[Any]]:
        request = {
            "inputs": [_tensor(name, value) for name, value in inputs.items()],
            "outputs": [{"name": name, "parameters": {"binary_data": True}} for name in outputs],
            "parameters": dict(parameters),
        }
        header = json.dumps(request).encode()
        body = b"".join([header, *(value for value in inputs.values() if isinstance(value, bytes))])
        headers, answer = self._call("POST", f"/v2/models/{model}/infer", timeout, body, {_LENGTH: str(len(header))})
        try:
            return _arrays(answer, int(headers.get(_LENGTH, len(answer))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServerError(
                f"http://{self._address} did not answer as Triton server does: {answer[:200].decode(errors='replace')}"
            ) from error

    def ready(self) -> bool:
        try:
            self._call("GET", "/v2/health/ready", _READY_TIMEOUT)
        except ServerError:
            return False
        return True

    def close(self) -> None:
        """Does nothing: no connection stays open between calls."""

    def _call(
        self,
        method: str,
        path: str,
        timeout: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> tuple[http.client.HTTPMessage, bytes]:
        connection = http.client.HTTPConnection(self._address, timeout=timeout)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            answer = response.read()
        except TimeoutError as error:
            raise ServerTimeout(f"http://{self._address} did not answer within {timeout:g} s") from error
        except (OSError, http.client.HTTPException) as error:
            raise ServerUnreachable(f"http://{self._address}: {error}; is the server running?") from error
        finally:
            connection.close()
        if response.status != 200:
            raise from_wire(_error_text(response.status, answer))
        return response.headers, answer


def _tensor(name: str, value: bytes | str) -> dict[str, Any]:
    if isinstance(value, str):
        return {"name": name, "datatype": "BYTES", "shape": [1], "data": [value]}
    size = len(value)
    return {"name": name, "datatype": "UINT8", "shape": [size], "parameters": {"binary_data_size": size}}


def _arrays(answer: bytes, header: int) -> dict[str, NDArray[Any]]:
    arrays: dict[str, NDArray[Any]] = {}
    start = header
    for output in json.loads(answer[:header])["outputs"]:
        end = start + output["parameters"]["binary_data_size"]
        if output["datatype"] == "BYTES":
            arrays[output["name"]] = _texts(answer[start:end], output["shape"])
        else:
            values = np.frombuffer(answer[start:end], _DTYPES[output["datatype"]])
            arrays[output["name"]] = values.reshape(output["shape"])
        start = end
    return arrays


def _texts(data: bytes, shape: Sequence[int]) -> NDArray[np.object_]:
    """BYTES elements, each preceded by its length as four little-endian bytes."""
    texts, start = [], 0
    while start < len(data):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        texts.append(data[start + 4 : end])
        start = end
    return np.array(texts, np.object_).reshape(shape)


def _error_text(status: int, answer: bytes) -> str:
    try:
        return str(json.loads(answer)["error"])
    except (ValueError, KeyError, TypeError):
        return f"HTTP status {status}: {answer[:500].decode(errors='replace')}"
