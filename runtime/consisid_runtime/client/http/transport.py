"""The HTTP transport."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from consisid_runtime.client.access import Access
from consisid_runtime.client.http.body import infer_request, read_arrays, read_error, stream_request
from consisid_runtime.client.http.connection import Address
from consisid_runtime.client.http.events import Events, read_answer
from consisid_runtime.client.http.exchange import Request, exchange
from consisid_runtime.client.proxy import Proxy, authority
from consisid_runtime.client.transport import PATIENCE, Parameters
from consisid_runtime.errors import ServerError, ServerTimeout

if TYPE_CHECKING:
    from numpy.typing import NDArray


class HttpTransport:
    """A `Transport` over HTTP/1.1."""

    def __init__(self, host: str, port: int, *, tls: bool, access: Access, proxy: Proxy | None) -> None:
        shown = f"http{'s' if tls else ''}://{authority(host, port)}" + (f" through the proxy {proxy}" if proxy else "")
        self._address = Address(host, port, shown, access.context() if tls else None, proxy)
        self._headers = access.headers

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> dict[str, NDArray[Any]]:
        shown = self._address.shown
        request = infer_request(model, inputs, parameters, outputs, self._headers, timeout)
        try:
            async with (
                asyncio.timeout(timeout),
                exchange(request, self._address, min(patience, timeout)) as response,
            ):
                body = await response.read()
        except TimeoutError as error:
            raise ServerTimeout(f"{shown} did not answer within {timeout:g} s") from error
        if response.status != 200:
            raise read_error(response.status, response.headers, body, shown)
        arrays = read_arrays(response.headers, body, shown)
        return {name: array for name, array in arrays.items() if name in outputs}

    async def stream(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> AsyncGenerator[dict[str, NDArray[Any]], None]:
        shown = self._address.shown
        request = stream_request(model, inputs, parameters, self._headers, timeout)
        try:
            async with (
                asyncio.timeout(timeout),
                exchange(request, self._address, min(patience, timeout)) as response,
            ):
                if response.status != 200:
                    raise read_error(response.status, response.headers, await response.read(), shown)
                events = Events()
                async for piece in response.pieces():
                    for data in events.read(piece):
                        yield read_answer(data, shown)
        except TimeoutError as error:
            raise ServerTimeout(f"{shown} did not answer within {timeout:g} s") from error

    async def ready(self, timeout: float) -> bool:
        request = Request("GET", "/v2/health/ready", self._headers)
        try:
            async with asyncio.timeout(timeout), exchange(request, self._address, 0) as response:
                return response.status == 200
        except (ServerError, TimeoutError):
            return False
