"""Which addresses the gateway calls."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

import pytest

from consisid_gateway.addresses import Address, check
from consisid_gateway.errors import AddressRefused


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("https://example.com", Address("https", "example.com", 443, "/", private=False)),
        ("https://example.com:8443/a?b=c", Address("https", "example.com", 8443, "/a?b=c", private=False)),
        ("https://8.8.8.8/", Address("https", "8.8.8.8", 443, "/", private=False)),
        ("https://[2606:4700::1111]/", Address("https", "2606:4700::1111", 443, "/", private=False)),
    ],
)
def test_public_addresses(url: str, address: Address) -> None:
    assert check(url) == address


PRIVATE = [
    "127.0.0.1",
    "10.1.2.3",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "169.254.169.254",
    "0.0.0.0",
    "224.0.0.1",
    "255.255.255.255",
    "[::1]",
    "[::]",
    "[fe80::1]",
    "[fec0::1]",
    "[fd00:ec2::254]",
    "[ff02::1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:169.254.169.254]",
    "[64:ff9b::7f00:1]",
    "[2002:7f00:1::]",
    "localhost",
    "a.localhost",
    "localhost.",
    "printer.local",
]


@pytest.mark.parametrize("host", PRIVATE)
def test_private_addresses(host: str) -> None:
    with pytest.raises(AddressRefused):
        check(f"https://{host}/")
    assert check(f"http://{host}/", private=True).port == 80


@pytest.mark.parametrize(
    "url",
    [
        "",
        "http://example.com/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "//example.com/",
        "https://",
        "https:///path",
        "https://user@example.com/",
        "https://user:password@example.com/",
        "https://@example.com/",
        "https://example.com/#fragment",
        "https://example.com:99999/",
        "https://example.com:port/",
        "https://[::1",
        "https://exa mple.com/",
        "https://example.com/\r\nHost: other",
        "https://example.com/\x00",
        "https://exämple.com/",
        "https://example.com/" + "a" * 2048,
    ],
)
def test_what_is_no_address_of_a_webhook(url: str) -> None:
    with pytest.raises(AddressRefused):
        check(url)


def answer(*ips: str) -> Callable[..., Any]:
    return lambda *args, **more: [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (ip, 443)) for ip in ips]


@pytest.mark.parametrize("ips", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["::1"], ["fe80::1%eth0"]])
def test_a_name_with_a_private_address(monkeypatch: pytest.MonkeyPatch, ips: list[str]) -> None:
    address = check("https://example.com/")
    monkeypatch.setattr(socket, "getaddrinfo", answer(*ips))
    with pytest.raises(AddressRefused):
        address.resolve()


def test_a_name_with_public_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(socket, "getaddrinfo", answer("8.8.8.8", "8.8.4.4", "8.8.8.8"))
    assert check("https://example.com/").resolve() == ["8.8.8.8", "8.8.4.4"]


@pytest.mark.parametrize("host", ["127.1", "0x7f000001", "2130706433", "0177.0.0.1"])
def test_other_spellings_of_loopback(host: str) -> None:
    address = check(f"https://{host}/")
    with pytest.raises((AddressRefused, OSError)):
        address.resolve()


@pytest.mark.parametrize("host", ["a..b", ".example.com", f"{'x' * 64}.com"])
def test_names_that_cannot_be_looked_up(host: str) -> None:
    with pytest.raises(AddressRefused):
        check(f"https://{host}/")
