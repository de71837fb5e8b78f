"""One HTTP request and its response, on h11, which knows the protocol and does no input or output of its own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass

import h11

from consisid_runtime.client.http.connection import Address, Connection, connect, reason
from consisid_runtime.client.proxy import authority
from consisid_runtime.client.transport import MAX_ANSWER, patiently
from consisid_runtime.errors import ServerError, ServerUnreachable

_LARGEST_HEAD = 2**16
"""Bytes."""


@dataclass(frozen=True)
class Request:
    """What is sent; `body` in pieces."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: Sequence[bytes] = ()


class Response:
    """A response whose head has come; the body is read as it comes.

    Attributes:
        headers: lower-case names → values.
    """

    def __init__(self, reader: _Reader, head: h11.Response) -> None:
        self._reader = reader
        self.status: int = head.status_code
        self.headers = {name.decode(): value.decode(errors="replace") for name, value in head.headers}

    async def pieces(self) -> AsyncIterator[bytes]:
        """The body in pieces. Raises as `exchange`."""
        length = self.headers.get("content-length", "")
        room = MAX_ANSWER - (int(length) if length.isdecimal() else 0)
        while room >= 0:
            event = await self._reader.next()
            if not isinstance(event, h11.Data):
                return
            if not length:
                room -= len(event.data)
            yield bytes(event.data)
        raise ServerError(f"{self._reader.shown} answered with more than {MAX_ANSWER} bytes")

    async def read(self) -> bytes:
        """The whole body. Raises as `exchange`."""
        return b"".join([piece async for piece in self.pieces()])


@asynccontextmanager
async def exchange(request: Request, address: Address, patience: float) -> AsyncIterator[Response]:
    """Connect, for `patience` seconds, and send; the connection ends with the context, and the request with it.

    Raises `ServerUnreachable`, `CertificateRefused`, and `ServerError` for what is not HTTP.
    """
    connection = await patiently(lambda: connect(address), patience)
    try:
        protocol = h11.Connection(h11.CLIENT, max_incomplete_event_size=_LARGEST_HEAD)
        _send(request, address, protocol, connection)
        reader = _Reader(connection, protocol, address.shown)
        while not isinstance(head := await reader.next(), h11.Response):
            pass
        yield Response(reader, head)
    finally:
        connection.transport.abort()


def _send(request: Request, address: Address, protocol: h11.Connection, connection: Connection) -> None:
    target, fields = request.path, {"Host": authority(address.host, address.port), **request.headers}
    if address.proxy is not None and address.tls is None:
        target = f"http://{fields['Host']}{target}"
        fields |= address.proxy.headers
    if request.body:
        fields["Content-Length"] = str(sum(map(len, request.body)))
    head = h11.Request(method=request.method, target=target, headers=list(fields.items()))
    pieces = [protocol.send(head) or b"", *request.body]
    for piece in request.body:
        protocol.send_with_data_passthrough(h11.Data(data=piece))
    protocol.send(h11.EndOfMessage())
    # At once: an event loop looks whether an answer came before it goes on writing, but not between two writes. A
    # server may refuse a request by its head, and close.
    connection.transport.write(b"".join(pieces))


class _Reader:
    """The events of one response."""

    def __init__(self, connection: Connection, protocol: h11.Connection, shown: str) -> None:
        self._connection, self._protocol, self.shown = connection, protocol, shown
        self._received = self._answered = False

    async def next(self) -> object:
        """The next event of h11. Raises `ServerUnreachable` or `ServerError`."""
        ended = False
        try:
            while (event := self._protocol.next_event()) is h11.NEED_DATA:
                data = await self._connection.read()
                ended = not data
                self._received = self._received or not ended
                self._protocol.receive_data(data)
        except (h11.RemoteProtocolError, OSError) as error:
            raise self._typed(error, ended=ended or isinstance(error, OSError)) from error
        if isinstance(event, h11.ConnectionClosed):
            raise self._typed(EOFError(), ended=True)
        self._answered = self._answered or isinstance(event, h11.Response)
        return event

    def _typed(self, error: Exception, *, ended: bool) -> ServerError:
        if self._answered and ended:
            return ServerError(f"{self.shown} closed the connection in the middle of its answer")
        if self._received and not isinstance(error, OSError):
            return ServerError(f"{self.shown} did not answer in HTTP ({str(error)[:200]})")
        why = f" ({reason(error)})" if isinstance(error, OSError) else ""
        return ServerUnreachable(
            f"{self.shown} closed the connection before it had answered{why}; does the server run?", begun=True
        )
