"""Connections over TCP and TLS, directly or through a proxy."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
import threading
from collections import deque
from dataclasses import dataclass
from typing import Any

import h11

from consisid_runtime.client.proxy import Proxy, authority
from consisid_runtime.client.transport import ATTEMPT
from consisid_runtime.errors import CertificateRefused, ServerError, ServerUnreachable


@dataclass(frozen=True)
class Address:
    """Where to connect.

    Attributes:
        tls: None without TLS.
        shown: the server in messages.
    """

    host: str
    port: int
    shown: str
    tls: ssl.SSLContext | None = None
    proxy: Proxy | None = None


class Connection(asyncio.Protocol):
    """A connection's bytes. Unlike those of a StreamReader, what came before an error can still be read."""

    def __init__(self) -> None:
        self._pieces: deque[bytes] = deque()
        self._news = asyncio.Event()
        self._over = False
        self._error: Exception | None = None
        self.transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self._pieces.append(data)
        self._news.set()

    def eof_received(self) -> None:
        self._over = True
        self._news.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._over, self._error = True, error
        self._news.set()

    async def read(self) -> bytes:
        """The next bytes; empty at the end. Raises `OSError` where the connection was lost."""
        while not self._pieces and not self._over:
            self._news.clear()
            await self._news.wait()
        if self._pieces:
            return self._pieces.popleft()
        if self._error is not None:
            raise self._error
        return b""


async def connect(address: Address) -> Connection:
    """One attempt. Raises `ServerUnreachable`, `CertificateRefused`, or `ServerError` for what a proxy answered."""
    try:
        if address.proxy is None:
            return await _open(address.host, address.port, address.tls)
        connection = await _open(address.proxy.host, address.proxy.port, None)
        if address.tls is not None:
            await _tunnel(connection, address)
        return connection
    except ssl.SSLCertVerificationError as error:
        raise CertificateRefused(f"{address.shown}: {error.verify_message}") from error
    except (OSError, UnicodeError) as error:
        raise ServerUnreachable(f"{address.shown}: {reason(error)}; is the server running?") from error


def reason(error: Exception) -> str:
    """An error of the system in words."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


async def _open(host: str, port: int, tls: ssl.SSLContext | None) -> Connection:
    """At the first of the host's addresses that answers. Raises `OSError` or `UnicodeError`."""
    loop = asyncio.get_running_loop()
    failed: OSError | None = None
    for family, kind, protocol, _, place in await _resolve(host, port):
        found = socket.socket(family, kind, protocol)
        found.setblocking(False)
        try:
            async with asyncio.timeout(ATTEMPT):
                await _reach(found, place)
                name = None if tls is None else host
                _, made = await loop.create_connection(Connection, sock=found, ssl=tls, server_hostname=name)
                return made
        except OSError as error:
            found.close()
            failed = error if str(error) else TimeoutError(f"no connection within {ATTEMPT:g} s")
        except BaseException:
            found.close()
            raise
    assert failed is not None
    raise failed


async def _reach(found: socket.socket, place: Any) -> None:
    """Connect. Raises `OSError` in the system's words, which asyncio's are not."""
    try:
        await asyncio.get_running_loop().sock_connect(found, place)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno)) from error


async def _resolve(host: str, port: int) -> list[Any]:
    """In a thread that nothing waits for: those of an event loop would hold the process at its end."""
    loop = asyncio.get_running_loop()
    found: asyncio.Future[list[Any]] = loop.create_future()

    def tell(addresses: list[Any], error: Exception | None) -> None:
        if found.done():
            return
        if error is None:
            found.set_result(addresses)
        else:
            found.set_exception(error)

    def work() -> None:
        addresses: list[Any] = []
        failed: Exception | None = None
        try:
            addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            failed = error
        if not loop.is_closed():
            loop.call_soon_threadsafe(tell, addresses, failed)

    threading.Thread(target=work, daemon=True).start()
    return await found


async def _tunnel(connection: Connection, address: Address) -> None:
    """Ask the proxy for a connection to the server, and begin TLS in it. Raises `OSError` or `ServerError`."""
    assert address.proxy is not None and address.tls is not None
    target = authority(address.host, address.port)
    protocol = h11.Connection(h11.CLIENT)
    fields = [("Host", target), *address.proxy.headers.items()]
    connection.transport.write(protocol.send(h11.Request(method="CONNECT", target=target, headers=fields)))
    try:
        while (event := protocol.next_event()) is h11.NEED_DATA or type(event) is h11.InformationalResponse:
            if event is h11.NEED_DATA:
                protocol.receive_data(await connection.read())
    except h11.RemoteProtocolError as error:
        connection.transport.abort()
        raise ServerError(f"{address.shown}: the proxy did not answer in HTTP ({error})") from error
    status = getattr(event, "status_code", 0)
    if not 200 <= status < 300:
        connection.transport.abort()
        raise ServerError(f"{address.shown}: the proxy answered with HTTP status {status}")
    connection.transport = await asyncio.get_running_loop().start_tls(
        connection.transport, connection, address.tls, server_hostname=address.host, ssl_handshake_timeout=ATTEMPT
    )
