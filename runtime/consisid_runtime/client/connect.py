"""Makes the transport of a server's URL."""

from __future__ import annotations

from urllib.parse import urlsplit

from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import InvalidOption


def connect(url: str) -> Transport:
    """The transport for `grpc://host:port` or `http://host:port`. Sends nothing. Raises `InvalidOption`."""
    try:
        parts = urlsplit(url)
        address = f"{parts.hostname}:{parts.port}"
        complete = bool(parts.hostname and parts.port)
    except ValueError:
        complete = False
    if not complete or parts.scheme not in ("grpc", "http") or parts.path.strip("/") or parts.query or parts.username:
        raise InvalidOption(f"a server's URL is grpc://host:port or http://host:port, got {url!r}")
    if parts.scheme == "grpc":
        from consisid_runtime.client.grpc import GrpcTransport

        return GrpcTransport(address)
    from consisid_runtime.client.http import HttpTransport

    return HttpTransport(address)
