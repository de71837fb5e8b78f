"""gRPC's server with bounds on messages, headers, streams, connections and silence."""

from __future__ import annotations

from typing import Any

import grpc

from consisid_runtime.door.access import Access
from consisid_runtime.door.grpc.service import Service
from consisid_runtime.door.limits import Limits

_PING_MS = 30_000


class Listener:
    """For one event loop."""

    def __init__(self, service: Service, access: Access, limits: Limits) -> None:
        self._service, self._access, self._limits = service, access, limits
        options: list[tuple[str, Any]] = [
            ("grpc.max_receive_message_length", limits.message),
            ("grpc.max_send_message_length", -1),
            ("grpc.max_metadata_size", limits.head),
            ("grpc.absolute_max_metadata_size", limits.head),
            ("grpc.max_concurrent_streams", limits.fields),
            ("grpc.max_allowed_incoming_connections", limits.connections),
            ("grpc.server_handshake_timeout_ms", int(limits.handshake_seconds * 1000)),
            ("grpc.max_connection_idle_ms", int(limits.idle_seconds * 1000)),
            ("grpc.keepalive_time_ms", _PING_MS),
            ("grpc.keepalive_timeout_ms", _PING_MS // 3),
            ("grpc.keepalive_permit_without_calls", 1),
            ("grpc.http2.min_ping_interval_without_data_ms", _PING_MS // 6),
            ("grpc.so_reuseport", 0),  # a second door would share the port in silence
        ]
        self._server = grpc.aio.server(handlers=[service], options=options)

    async def start(self, target: str) -> None:
        """Raises `RuntimeError` where the port cannot be bound."""
        if self._access.key is None:
            self._server.add_insecure_port(target)
        else:
            pair = (self._access.key, self._access.certificate)
            self._server.add_secure_port(target, grpc.ssl_server_credentials([pair]))
        await self._server.start()

    async def stop(self) -> None:
        """What is being answered ends, or is ended after the grace."""
        self._service.close()
        await self._server.stop(self._limits.grace)
