"""Makes the transport of a server's URL."""

from __future__ import annotations

import re
from urllib.parse import unquote, urlsplit

from consisid_runtime.client.access import Access
from consisid_runtime.client.proxy import is_loopback, numeric, proxy_of
from consisid_runtime.client.transport import Transport
from consisid_runtime.errors import InvalidOption

_SCHEMES = ("grpc", "grpcs", "http", "https")
_HOST = re.compile(r"[^\s\x00-\x1f\x7f%\\\"<>^`{|}]+(%[\w.-]+)?")


def connect(url: str, access: Access = Access()) -> Transport:  # noqa: B008  it is frozen
    """The transport for `grpc://host:port`, `grpcs://`, `http://` or `https://`, an IPv6 address in brackets.

    Sends nothing. Goes through the environment's proxy: see `proxy_of`.

    Raises `InvalidOption`, also for a token that would leave this machine unencrypted.
    """
    scheme, host, port = _parse(url)
    tls = scheme.endswith("s")
    if access.token is not None and not tls and not is_loopback(host):
        raise InvalidOption(
            f"the token would go to {host} unencrypted; use {scheme}s:// (the server needs TLS: `consisid serve "
            "--tls-cert`), or a tunnel to it that begins on this machine's loopback address; token='' sends none"
        )
    proxy = proxy_of(host, port, tls=tls)
    if scheme.startswith("grpc"):
        from consisid_runtime.client.grpc import GrpcTransport

        return GrpcTransport(host, port, tls=tls, access=access, proxy=proxy)
    from consisid_runtime.client.http.transport import HttpTransport

    return HttpTransport(host, port, tls=tls, access=access, proxy=proxy)


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
    if not port or parts.scheme not in _SCHEMES or extra or not _HOST.fullmatch(host):
        raise InvalidOption(
            f"a server's URL is grpc://host:port or http://host:port, with TLS grpcs:// or https://, got {url!r}"
        )
    return parts.scheme, host, port
