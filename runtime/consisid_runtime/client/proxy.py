"""Which proxy a server is reached through: one rule for gRPC and HTTP, read from the environment."""

from __future__ import annotations

import base64
import re
import socket
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import quote, unquote, urlsplit

from consisid_runtime.errors import InvalidOption

_PORT = 80


@dataclass(frozen=True)
class Proxy:
    """An HTTP proxy.

    Attributes:
        host, port: where it listens.
        credentials: `user:password`, as they are; None without.
    """

    host: str
    port: int
    credentials: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        return f"http://{authority(self.host, self.port)}"

    @property
    def url(self) -> str:
        """With the credentials, as gRPC takes it."""
        if self.credentials is None:
            return str(self)
        user, _, password = self.credentials.partition(":")
        return f"http://{quote(user, safe='')}:{quote(password, safe='')}@{authority(self.host, self.port)}"

    @property
    def headers(self) -> dict[str, str]:
        """What each request to the proxy carries."""
        if self.credentials is None:
            return {}
        return {"Proxy-Authorization": f"Basic {base64.b64encode(self.credentials.encode()).decode()}"}


def authority(host: str, port: int) -> str:
    """`host:port`, an IPv6 address in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def proxy_of(host: str, port: int, *, tls: bool = False) -> Proxy | None:
    """The proxy in `http_proxy`, for TLS `https_proxy`, else `all_proxy`; none for loopback and what `no_proxy` lists.

    Lower-case names of the variables win. Entries of `no_proxy` are host names, which include their subdomains,
    addresses, networks such as 10.0.0.0/8, each with a port or without, or `*`.

    Raises `InvalidOption` for a proxy that is not `http://[user:password@]host[:port]`.
    """
    from urllib.request import getproxies_environment

    kind, found = "https" if tls else "http", getproxies_environment()
    url = found.get(kind) or found.get("all")
    if not url or is_loopback(host) or _is_listed(host, port, found.get("no", "")):
        return None
    parts = urlsplit(url if "://" in url else f"http://{url}")
    try:
        proxy_host, proxy_port = parts.hostname, parts.port or _PORT
    except ValueError:
        proxy_host = None
    if parts.scheme != "http" or not proxy_host:
        shown = re.sub("//.*@", "//…@", url)
        raise InvalidOption(
            f"the environment's proxy must be http://host:port, got {shown!r}; correct {kind}_proxy or all_proxy, or "
            f"list {host} in no_proxy"
        )
    credentials = None
    if parts.username is not None:
        credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return Proxy(proxy_host, proxy_port, credentials)


def is_loopback(host: str) -> bool:
    """Whether a connection to this host stays on this machine."""
    name = host.lower().rstrip(".")
    if name == "localhost" or name.endswith(".localhost"):
        return True
    address = numeric(host)
    # A connection to the unspecified address reaches this machine.
    return address is not None and (address.is_loopback or address.is_unspecified)


def _is_listed(host: str, port: int, no_proxy: str) -> bool:
    name, address = host.lower().rstrip("."), numeric(host)
    for entry in no_proxy.lower().replace(",", " ").split():
        if entry == "*":
            return True
        with_port = re.fullmatch(r"(\[.*\]|[^:]*):(\d+)", entry)
        if with_port and int(with_port[2]) != port:
            continue
        listed = (with_port[1] if with_port else entry).strip("[]")
        if address is not None:
            try:
                if address in ip_network(listed, strict=False):
                    return True
            except ValueError:
                continue
        else:
            domain = listed.removeprefix("*").strip(".")
            if domain and (name == domain or name.endswith(f".{domain}")):
                return True
    return False


def numeric(host: str) -> IPv4Address | IPv6Address | None:
    """The address of a host that is written as one, in any of the forms that connecting accepts (127.1)."""
    try:
        found = socket.getaddrinfo(host, None, flags=socket.AI_NUMERICHOST)[0][4][0]
    except (OSError, UnicodeError):
        return None
    address = ip_address(str(found).partition("%")[0])
    return (address.ipv4_mapped or address) if isinstance(address, IPv6Address) else address
