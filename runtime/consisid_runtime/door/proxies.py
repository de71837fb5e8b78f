"""Proxies before the door: whose word is taken for who calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from consisid_runtime.errors import InvalidOption


@dataclass(frozen=True, slots=True)
class Proxies:
    """Trusted ones; by default none.

    Attributes:
        networks: their addresses.
    """

    networks: tuple[IPv4Network | IPv6Network, ...] = ()

    @classmethod
    def read(cls, text: str) -> Proxies:
        """From addresses and networks, separated by commas. Raises `InvalidOption` for what is neither."""
        return cls(tuple(_network(name.strip()) for name in text.split(",")) if text else ())

    def trusts(self, host: str | None) -> bool:
        """Whether a connection from this address is a proxy's."""
        found = _address(host or "")
        return found is not None and any(found in network for network in self.networks)

    def caller(self, peer: str, forwarded: Iterable[str]) -> str:
        """The address of who calls: the last one on the way to the door that is not a trusted proxy's.

        What is left of it anybody may have written. Where a proxy names no address, its own stands for its callers.

        Args:
            peer: who is connected.
            forwarded: the values of X-Forwarded-For, in their order.
        """
        if not self.networks:
            return peer
        caller, hops = peer, ",".join(forwarded).split(",")
        while hops and self.trusts(caller) and (hop := _address(hops.pop())) is not None:
            caller = str(hop)
        return caller


def _network(name: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(name)
    except ValueError as error:
        raise InvalidOption(
            f"a trusted proxy is an IP address or a network such as 10.0.0.0/8, got {name[:100]!r}: {error}"
        ) from None


def _address(text: str) -> IPv4Address | IPv6Address | None:
    """Of `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1` and `[2001:db8::1]:80`; None for anything else."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found
