"""Listens for HTTP with the door's own protocol; uvicorn's server would take signals and wake ten times a second."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from consisid_runtime.door.access import Access
from consisid_runtime.door.http.connections import Connections
from consisid_runtime.door.http.protocol import Connection, Interface
from consisid_runtime.door.limits import Limits

_BACKLOG = 128


class Listener:
    """For one event loop.

    Args:
        interface: the door's; another one for another application.

    Attributes:
        connections: those that it has accepted.
    """

    def __init__(self, app: Any, access: Access, limits: Limits, interface: Interface = Interface()) -> None:  # noqa: B008  it is frozen
        self._config = Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            server_header=False,
            timeout_keep_alive=int(limits.idle_seconds),
        )
        self._access, self._limits, self._interface = access, limits, interface
        self._state = ServerState()
        self.connections = Connections(limits)
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int) -> None:
        """Raises `OSError` where the port cannot be bound."""
        self._config.load()
        context = self._access.context()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(
                self._config, self._state, self.connections, self._limits, self._access.proxies, self._interface
            ),
            address,
            port,
            backlog=_BACKLOG,
            ssl=context,
            ssl_handshake_timeout=self._limits.handshake_seconds if context else None,
        )

    @property
    def port(self) -> int:
        """On which it listens."""
        assert self._server is not None
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Close idle connections; those with a request end with its answer, or after the grace."""
        if self._server is None:
            return
        self._server.close()
        for connection in list(self._state.connections):
            connection.shutdown()
        if self._state.tasks:
            await asyncio.wait(list(self._state.tasks), timeout=self._limits.grace)
        for connection in list(self._state.connections):
            connection.transport.abort()
