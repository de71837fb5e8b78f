"""Makes the transport of a server's URL."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from consisid_runtime.client.proxy import numeric, proxy_of
from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import InvalidOption

READY_TIMEOUT = 10.0
"""Seconds that `ready` waits at most."""

_HOST = re.compile(r"[^\s\x00-\x1f\x7f%\\\"<>^`{|}]+(%[\w.-]+)?")


def connect(url: str, *, ready_timeout: float = READY_TIMEOUT) -> Transport:
    """The transport for `grpc://host:port` or `http://host:port`, an IPv6 address in brackets. Sends nothing.

    Goes through the environment's proxy: see `proxy_of`.

    Args:
        ready_timeout: seconds until `ready` is false.

    Raises `InvalidOption`.
    """
    scheme, host, port = _parse(url)
    proxy = proxy_of(host, port)
    if scheme == "grpc":
        from consisid_runtime.client.grpc import GrpcTransport

        return GrpcTransport(host, port, proxy=proxy, ready_timeout=ready_timeout)
    from consisid_runtime.client.http import HttpTransport

    return HttpTransport(host, port, proxy=proxy, ready_timeout=ready_timeout)


def _parse(url: str) -> tuple[str, str, int]:
    try:
        parts = urlsplit(url)
        host, port = unquote(parts.hostname or ""), parts.port
        if ":" not in host:
            # Names of other scripts travel as ASCII; a name that cannot has an empty or too long label.
            host = host.encode("idna").decode()
            # gRPC's resolver does not know short forms of addresses such as 127.1.
            host = str(numeric(host) or host)
    except ValueError:
        host, port = "", None
    extra = not host or "@" in parts.netloc or parts.path.strip("/") or parts.query or parts.fragment
    if not port or parts.scheme not in ("grpc", "http") or extra or not _HOST.fullmatch(host):
        raise InvalidOption(f"a server's URL is grpc://host:port or http://host:port, got {url!r}")
    return parts.scheme, host, port
