"""Which address and ports the server binds, from what a user names."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Sequence
from typing import Any

import pytest

from consisid_runtime.errors import InvalidOption
from consisid_runtime.serve.address import for_http, free_ports, in_url, reachable, resolve

IPV6 = pytest.mark.skipif(not socket.has_ipv6, reason="needs IPv6")


@pytest.mark.parametrize(
    ("host", "bound", "url", "http", "client"),
    [
        ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("localhost", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        (" localhost ", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("127.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("0.0.0.0", "0.0.0.0", "0.0.0.0", "0.0.0.0", "127.0.0.1"),
        pytest.param("::1", "::1", "[::1]", "ipv6:::1", "[::1]", marks=IPV6),
        pytest.param("[::1]", "::1", "[::1]", "ipv6:::1", "[::1]", marks=IPV6),
        pytest.param("::", "::", "[::]", "ipv6:::", "[::1]", marks=IPV6),
        pytest.param("::ffff:127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.1", marks=IPV6),
    ],
)
def test_an_address_in_every_notation(host: str, bound: str, url: str, http: str, client: str) -> None:
    address = resolve(host)
    assert address == ipaddress.ip_address(bound)
    assert (in_url(address), for_http(address), in_url(reachable(address))) == (url, http, client)


@pytest.mark.parametrize(
    "host",
    [
        "", " ", "\t", "a\0b", "nosuch.invalid", "a..b", "x" * 300, "127.0.0.1:80", "grpc://localhost", "1.2.3.4.5",
        "-1", "8.8.8.8", "192.0.2.1", "224.0.0.1", "255.255.255.255", "ff02::1", "2001:db8::1", "fe80::1%lo", "*",
    ],
)  # fmt: skip
def test_what_this_machine_cannot_bind(host: str) -> None:
    with pytest.raises(InvalidOption):
        resolve(host)


def test_of_a_names_addresses_ipv4_wins_and_strange_ones_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    def found(*_: Any, **__: Any) -> Sequence[Any]:
        kinds = [(socket.AF_INET6, "fe80::1%eth0"), (socket.AF_INET6, "::1"), (socket.AF_INET, "192.0.2.1")]
        if len(kinds) < wanted:
            kinds.append((socket.AF_INET, "127.0.0.1"))
        return [(kind, socket.SOCK_STREAM, 6, "", (text, 0)) for kind, text in kinds]

    monkeypatch.setattr(socket, "getaddrinfo", found)
    wanted = 4
    assert str(resolve("name")) == "127.0.0.1"
    if socket.has_ipv6:
        wanted = 3
        assert str(resolve("name")) == "::1"


@IPV6
def test_a_port_in_use_at_an_ipv6_address() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(InvalidOption, match=rf"\[::1\]:{port} for HTTP"):
            free_ports(resolve("::1"), (0, port, 0))
    assert len(set(free_ports(resolve("::1"), (0, 0, 0)))) == 3
