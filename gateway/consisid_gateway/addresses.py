"""Addresses that callers choose for the gateway to call: never one within a private network, unless that is allowed."""

from __future__ import annotations

import ipaddress
import socket
from dataclasses import dataclass
from urllib.parse import urlsplit

from consisid_gateway.errors import AddressRefused

_LONGEST = 2048
_PORTS = {"https": 443, "http": 80}
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

IP = ipaddress.IPv4Address | ipaddress.IPv6Address


@dataclass(frozen=True, slots=True)
class Address:
    """The parts of a URL.

    Attributes:
        target: path and query.
        private: whether it may be in a private network.
    """

    scheme: str
    host: str
    port: int
    target: str
    private: bool

    def resolve(self) -> list[str]:
        """The IP addresses of the host now, all of which may be called: connect to one of these and to no other.

        Raises `AddressRefused` where one of them may not, and `OSError` where the name has none.
        """
        found = socket.getaddrinfo(self.host, self.port, type=socket.SOCK_STREAM)
        ips = list(dict.fromkeys(str(address[0]) for *_, address in found))
        for ip in ips:
            self.require(ipaddress.ip_address(ip.partition("%")[0]))
        return ips

    def require(self, ip: IP) -> None:
        """Raises `AddressRefused` for an IP address that may not be called."""
        if not self.private and not _public(ip):
            raise AddressRefused(f"{self.host} is an address of a private network")


def check(url: str, *, private: bool = False) -> Address:
    """The parts of a URL that may be called, as far as can be said without asking for its host's IP address.

    Args:
        private: allow private networks, and http.

    Raises `AddressRefused`.
    """
    if len(url) > _LONGEST or not url.isascii() or not url.isprintable() or " " in url:
        raise AddressRefused(f"a URL has at most {_LONGEST} characters, printable ones of ASCII")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        raise AddressRefused(f"{url[:100]!r} is no URL") from None
    schemes = ("https", "http") if private else ("https",)
    if parts.scheme not in schemes or not host:
        raise AddressRefused(f"a URL begins with {' or '.join(f'{scheme}://' for scheme in schemes)} and names a host")
    if parts.username is not None or parts.password is not None or parts.fragment:
        raise AddressRefused("the URL of a webhook has neither user nor password nor fragment")
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    address = Address(parts.scheme, host, _PORTS[parts.scheme] if port is None else port, target, private)
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        try:
            host.encode("idna")  # as it is looked up
        except UnicodeError:
            raise AddressRefused(f"{host[:100]!r} is no name of a host") from None
        if not private and (host.rstrip(".") == "localhost" or host.rstrip(".").endswith((".localhost", ".local"))):
            raise AddressRefused(f"{host} is an address of a private network") from None
    else:
        address.require(literal)
    return address


def _public(ip: IP) -> bool:
    if isinstance(ip, ipaddress.IPv6Address):
        within = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if ip in _NAT64:
            within = ipaddress.IPv4Address(int(ip) & 0xFFFF_FFFF)
        if within is not None:
            return _public(within)
        if ip.is_site_local:  # which Python takes for global
            return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved
