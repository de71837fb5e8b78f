"""Where the server listens: one numeric address from what the user named, and free ports on it."""

from __future__ import annotations

import contextlib
import ipaddress
import socket

from consisid_runtime.errors import InvalidOption

Address = ipaddress.IPv4Address | ipaddress.IPv6Address

_BROADCAST = ipaddress.IPv4Address("255.255.255.255")


def resolve(host: str) -> Address:
    """The address of this machine that `host` names: an IPv4 or IPv6 address, or a name, whose IPv4 address wins.

    Raises `InvalidOption` for a name that cannot be resolved, and for an address that this machine does not have.
    """
    wanted = host.strip()
    if wanted.startswith("[") and wanted.endswith("]"):
        wanted = wanted[1:-1]
    if not wanted or not wanted.isprintable():
        raise InvalidOption(f"the host must be an address or a name, got {host[:100]!r}; 0.0.0.0 is every IPv4 address")
    try:
        # "127.1" and "0" are addresses for the resolver.
        found = socket.getaddrinfo(wanted, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or "not a host name"
        raise InvalidOption(
            f"cannot resolve the host {host[:100]!r} ({reason}); name an address of this machine, no port or scheme"
        ) from error
    known = [(kind, str(address[0])) for kind, *_, address in found if kind in (socket.AF_INET, socket.AF_INET6)]
    refused = "it has no IPv4 or IPv6 address"
    for _, text in sorted(known, key=lambda entry: entry[0] != socket.AF_INET):
        if "%" in text:
            refused = f"{text} is a link-local address with a zone, which Triton server cannot bind"
            continue
        address = ipaddress.ip_address(text)
        address = getattr(address, "ipv4_mapped", None) or address
        if problem := _refusal(address):
            refused = problem
            continue
        return address
    raise InvalidOption(f"cannot listen on {host[:100]!r}: {refused}; name an address of this machine")


def _refusal(address: Address) -> str | None:
    """Why this machine cannot listen on an address; None where it can."""
    if address.is_multicast or address == _BROADCAST:  # Linux binds them, and nobody can connect
        return f"{address} is not the address of one machine"
    try:
        with socket.socket(_family(address)) as trial:
            trial.bind((str(address), 0))
    except OSError as error:
        return f"{address}: {error.strerror}"
    return None


def reachable(address: Address) -> Address:
    """An address that a client on this machine can connect to: loopback where every address is bound."""
    if not address.is_unspecified:
        return address
    return ipaddress.ip_address("127.0.0.1" if address.version == 4 else "::1")


def in_url(address: Address) -> str:
    """The address as URLs and gRPC have it: IPv6 in brackets."""
    return f"[{address}]" if address.version == 6 else str(address)


def for_http(address: Address) -> str:
    """The address as the HTTP and metrics servers of Triton server have it."""
    return f"ipv6:{address}" if address.version == 6 else str(address)


def free_ports(address: Address, wanted: tuple[int, int, int]) -> tuple[int, int, int]:
    """The ports of gRPC, HTTP and metrics, each 0 replaced by a free one.

    Raises `InvalidOption` for one in use, given twice or out of range.
    """
    for port in wanted:
        if not 0 <= port <= 65535:
            raise InvalidOption(f"a port is from 0 to 65535, got {port}")
        if port and wanted.count(port) > 1:
            raise InvalidOption(f"port {port} was given for two services; choose three different ports, or 0")
    with contextlib.ExitStack() as stack:
        found = []
        for name, port in zip(("gRPC", "HTTP", "metrics"), wanted, strict=True):
            found.append(stack.enter_context(_bound(address, port, name)).getsockname()[1])
    return found[0], found[1], found[2]


def require_free(address: Address, port: int, name: str) -> None:
    """Raises `InvalidOption` where nothing can listen on a port of an address now; `name` says for what."""
    _bound(address, port, name).close()


def _bound(address: Address, port: int, name: str) -> socket.socket:
    listener = socket.socket(_family(address))
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((str(address), port))
    except OSError as error:
        listener.close()
        raise InvalidOption(
            f"cannot listen on {in_url(address)}:{port} for {name} ({error.strerror}); choose another port, or "
            "0 for a free one"
        ) from error
    return listener


def _family(address: Address) -> socket.AddressFamily:
    return socket.AF_INET6 if address.version == 6 else socket.AF_INET
