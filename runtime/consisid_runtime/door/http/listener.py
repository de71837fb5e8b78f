"""Listens for HTTP with the door's own protocol; uvicorn's server would take signals and wake ten times a second."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.config import Config
from uvicorn.server import ServerState

from consisid_runtime.door.access import Access
from consisid_runtime.door.http.connections import Connections
from consisid_runtime.door.http.protocol import Connection
from consisid_runtime.door.limits import Limits

_BACKLOG = 128


class Listener:
    """For one event loop.

    Attributes:
        connections: those that it has accepted.
    """

    def __init__(self, app: Any, access: Access, limits: Limits) -> None:
        self._config = Config(
            app,
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            log_level="critical",
            access_log=False,
            proxy_headers=False,
            timeout_keep_alive=int(limits.idle_seconds),
        )
        self._access, self._limits = access, limits
        self._state = ServerState()
        self.connections = Connections(limits)
        self._server: asyncio.Server | None = None

    async def start(self, address: str, port: int) -> None:
        """Raises `OSError` where the port cannot be bound."""
        self._config.load()
        context = self._access.context()
        self._server = await asyncio.get_running_loop().create_server(
            lambda: Connection(self._config, self._state, self.connections, self._limits),
            address,
            port,
            backlog=_BACKLOG,
            ssl=context,
            ssl_handshake_timeout=self._limits.handshake_seconds if context else None,
        )

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
