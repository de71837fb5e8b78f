"""uvicorn's HTTP protocol within bounds: it limits neither a head's size, nor how long one takes, nor pipelining.

`HttpToolsProtocol` is no public interface: pyproject.toml pins uvicorn, and the tests send what every bound refuses.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from consisid_runtime.door.access import owner
from consisid_runtime.door.http.connections import Connections
from consisid_runtime.door.limits import Limits
from consisid_runtime.door.proxies import Proxies
from consisid_runtime.errors import Busy, ConsisIDError, MalformedRequest, RequestTooLarge, ServerTimeout

HEALTH = "/v2/health/"
"""What a surplus connection may ask for, and who has no token."""


def _sent(error: ConsisIDError) -> bytes:
    return json.dumps({"error": error.sent()}).encode()


@dataclass(frozen=True, slots=True)
class Interface:
    """What is spoken on a connection, as far as the protocol has to know it.

    Attributes:
        health: how the path begins that a surplus connection may ask for.
        told: an error as JSON.
    """

    health: str = HEALTH
    told: Callable[[ConsisIDError], bytes] = _sent


_PIECE, _BODY_PIECE = 2048, 65536
_LINGER = 2.0
"""Seconds for which a surplus connection may wait with its head."""
_STATUS = {
    400: "Bad Request",
    408: "Request Timeout",
    431: "Request Header Fields Too Large",
    503: "Service Unavailable",
}
_KEEPALIVE = ((socket.TCP_KEEPIDLE, 30), (socket.TCP_KEEPINTVL, 10), (socket.TCP_KEEPCNT, 3))


class Connection(HttpToolsProtocol):
    """One connection."""

    def __init__(
        self,
        config: Config,
        state: ServerState,
        connections: Connections,
        limits: Limits,
        proxies: Proxies,
        interface: Interface,
    ) -> None:
        super().__init__(config, state, {}, asyncio.get_running_loop())
        self.owner = ""
        self._connections, self._limits, self._proxies, self._interface = connections, limits, proxies, interface
        self._surplus, self._in_head, self._head = False, True, 0
        self._unread = limits.body
        self._timer: asyncio.TimerHandle | None = None
        self._closing = False

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        host = self.client[0] if self.client else None
        # A proxy's connections are of as many callers.
        self.owner = str(self.client) if self._proxies.trusts(host) else owner(host)
        if (found := transport.get_extra_info("socket")) is not None:
            found.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            for option, value in _KEEPALIVE:
                found.setsockopt(socket.IPPROTO_TCP, option, value)
        self._surplus = self._connections.enter(self)
        self._arm(_LINGER if self._surplus else self._limits.head_seconds)

    def connection_lost(self, exc: Exception | None) -> None:
        self._arm(None)
        self._connections.leave(self)
        super().connection_lost(exc)

    def drop(self) -> None:
        """Close it at once."""
        self._arm(None)
        self.transport.abort()

    def data_received(self, data: bytes) -> None:
        """In pieces: the head is counted before the parser keeps it, and a body of tiny chunks yields to others."""
        place = 0
        while place < len(data):
            if self.transport.is_closing() or self.parser is None:
                return
            piece = data[place : place + (_PIECE if self._in_head else _BODY_PIECE)]
            place += len(piece)
            if self._in_head:
                self._head += len(piece)
                if self._head > self._limits.head + _PIECE:
                    self._refuse(431, RequestTooLarge(f"the request's head has more than {self._limits.head} bytes"))
                    return
            super().data_received(piece)

    def send_400_response(self, msg: str) -> None:
        self._refuse(400, MalformedRequest("this is not an HTTP/1.1 request"))

    def on_message_begin(self) -> None:
        self._in_head = True
        super().on_message_begin()
        self._arm(_LINGER if self._surplus else self._limits.head_seconds)

    def on_header(self, name: bytes, value: bytes) -> None:
        if len(self.headers) <= self._limits.fields:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_head, self._head = False, 0
        if self.transport.is_closing():
            return
        size = sum(len(name) + len(value) for name, value in self.headers) + len(self.url)
        if len(self.headers) > self._limits.fields or size > self._limits.head:
            self._refuse(431, RequestTooLarge(f"a request has at most {self._limits.fields} header fields"))
        elif self.cycle is not None and not self.cycle.response_complete:
            # A second request would hide that the caller leaves.
            self._refuse(400, MalformedRequest("a connection takes the next request after the answer (no pipelining)"))
        elif self._surplus and not self.url.startswith(self._interface.health.encode()):
            self._refuse(503, Busy("there are too many connections; try again in 5 s", 5.0))
        else:
            self._arm(self._limits.body_seconds)
            self._connections.work(self)
            super().on_headers_complete()
            written = self.transport
            self.cycle.transport = SimpleNamespace(  # type: ignore[assignment]  # all that the cycle uses of it
                write=written.write, is_closing=written.is_closing, close=self._close_once_read
            )

    def on_body(self, body: bytes) -> None:
        if self.cycle is None or self.transport.is_closing():
            return
        if not self.cycle.response_complete:
            super().on_body(body)
            return
        # Refused already. To close at once would lose the answer to a client that still sends.
        self._unread -= len(body)
        if self._unread < 0:
            self.transport.close()

    def on_message_complete(self) -> None:
        self._in_head = True
        self._arm(None)
        if self.cycle is None or self.transport.is_closing():
            return
        super().on_message_complete()
        if self._closing:
            self.transport.close()
        elif self.cycle.response_complete:
            self._rest()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if not self.cycle.more_body:
            self._rest()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._arm(self._limits.body_seconds, self.drop)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._arm(None)

    def _close_once_read(self) -> None:
        """Close when the request has arrived: before, the answer would be lost to a client that still sends."""
        self._closing = True
        if self._in_head:
            self.transport.close()

    def _rest(self) -> None:
        self._connections.rest(self)

    def _arm(self, seconds: float | None, late: Any = None) -> None:
        """Call `late` after these seconds unless armed again; None disarms."""
        if self._timer is not None:
            self._timer.cancel()
        self._timer = None if seconds is None else self.loop.call_later(seconds, late or self._late)

    def _late(self) -> None:
        if self._closing:
            self.transport.close()
            return
        self._refuse(408, ServerTimeout("the request did not arrive in time"))

    def _refuse(self, status: int, error: ConsisIDError) -> None:
        if self.transport.is_closing():
            return
        body = self._interface.told(error)
        fields = [
            f"HTTP/1.1 {status} {_STATUS[status]}",
            "content-type: application/json",
            f"content-length: {len(body)}",
            "connection: close",
        ]
        if isinstance(error, Busy) and error.retry_after is not None:
            fields.append(f"retry-after: {error.retry_after:.0f}")
        self.transport.write("\r\n".join([*fields, "", ""]).encode() + body)
        self.transport.close()
