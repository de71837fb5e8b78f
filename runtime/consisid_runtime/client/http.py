"""The HTTP transport: KServe's JSON with its binary tensor data extension.

It uses the standard library and opens one connection a call, which makes it thread-safe; tritonclient's HTTP client, on
gevent, is not.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from consisid_runtime.client.answer import DTYPES
from consisid_runtime.client.calls import Calls
from consisid_runtime.client.exchange import Exchange, Request, Response
from consisid_runtime.client.proxy import Proxy, authority
from consisid_runtime.client.transport import PATIENCE, Parameters
from consisid_runtime.errors import Busy, ConsisIDError, ServerError, from_wire
from consisid_runtime.files.json_file import parse_json

if TYPE_CHECKING:
    from numpy.typing import NDArray

_LENGTH = "Inference-Header-Content-Length"


class HttpTransport:
    """A `Transport` over HTTP/1.1."""

    def __init__(self, host: str, port: int, *, proxy: Proxy | None, ready_timeout: float) -> None:
        self._server = f"http://{authority(host, port)}"
        self._shown = self._server + (f" through the proxy {proxy}" if proxy else "")
        self._connect_to = (proxy.host, proxy.port) if proxy else (host, port)
        self._base = self._server if proxy else ""
        self._headers = proxy.headers if proxy else {}
        self._ready_timeout = ready_timeout
        self._calls = Calls()

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
        # Triton server 2.51 ends at a body above 4 MB of curl's default type, application/x-www-form-urlencoded.
        headers = {_LENGTH: str(len(header)), "Content-Type": "application/octet-stream"}
        response = self._call("POST", f"/v2/models/{model}/infer", timeout, PATIENCE, body, headers)
        if response.status != 200:
            raise self._error(response)
        try:
            arrays = _arrays(response.body, int(response.headers.get(_LENGTH, len(response.body))))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ServerError(f"{self._shown} did not answer as Triton server does: {_beginning(response)}") from error
        return {name: array for name, array in arrays.items() if name in outputs}

    def ready(self) -> bool:
        try:
            return self._call("GET", "/v2/health/ready", self._ready_timeout, 0).status == 200
        except ServerError:
            return False

    def close(self) -> None:
        self._calls.close()

    def _call(
        self,
        method: str,
        path: str,
        timeout: float,
        patience: float,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Response:
        host, port = self._connect_to
        request = Request(host, port, method, self._base + path, {**self._headers, **(headers or {})}, body)
        exchange = Exchange(request, self._shown, patience=patience)
        with self._calls.running(exchange.end):
            return exchange.run(timeout)

    def _error(self, response: Response) -> ConsisIDError:
        try:
            sent = from_wire(str(parse_json(response.body)["error"]))
        except (ValueError, KeyError, TypeError):
            return ServerError(f"{self._shown} answered with HTTP status {response.status}: {_beginning(response)}")
        seconds = response.headers.get("Retry-After", "")
        if isinstance(sent, Busy) and seconds.isdecimal():
            sent.retry_after = float(seconds)
        return sent


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


def _beginning(response: Response) -> str:
    return response.body[:200].decode(errors="replace") or "an empty body"
