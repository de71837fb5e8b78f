"""One rule for the environment's proxy, over gRPC and HTTP."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

import pytest

from consisid_runtime import Client
from consisid_runtime.client.connect import connect
from consisid_runtime.client.proxy import Proxy, proxy_of
from consisid_runtime.errors import InvalidOption, ServerError

SCHEMES = ("grpc", "http")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy", "no_proxy", "no_grpc_proxy", "REQUEST_METHOD"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1"])
def test_loopback_is_never_proxied(
    monkeypatch: pytest.MonkeyPatch, stand_in: Callable[..., Any], unused_port: int, scheme: str, host: str
) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    stand_in(scheme, unused_port)
    with Client(f"{scheme}://{host}:{unused_port}", timeout=10) as client:
        assert client.ready()
        assert client.generate(b"photo", "a man").mp4 == b"photo"


@pytest.mark.parametrize("scheme", SCHEMES)
def test_other_hosts_go_through_the_proxy(
    monkeypatch: pytest.MonkeyPatch, peer: Callable[..., int], scheme: str
) -> None:
    received: list[bytes] = []

    def refuse(connection: Any) -> None:
        received.append(connection.recv(2**16))
        connection.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 4\r\n\r\nnot!")

    port = peer(refuse)
    monkeypatch.setenv("http_proxy", f"http://m%40e:pa%3Ass@127.0.0.1:{port}")
    with (
        Client(f"{scheme}://192.0.2.1:8000", timeout=1) as client,
        pytest.raises(
            ServerError, match=f"{scheme}://192.0.2.1:8000 through the proxy http://127.0.0.1:{port}.*403"
        ) as caught,
    ):
        client.generate(b"photo", "a man")
    assert "pa:ss" not in str(caught.value) and "pa%3Ass" not in str(caught.value)
    first = b"POST http://192.0.2.1:8000/v2/models/consisid/infer HTTP/1.1\r\n"
    assert received[0].startswith(b"CONNECT 192.0.2.1:8000 HTTP/1.1\r\n" if scheme == "grpc" else first)
    assert b"Proxy-Authorization: Basic " + base64.b64encode(b"m@e:pa:ss") in received[0]


@pytest.mark.parametrize("scheme", SCHEMES)
def test_no_proxy_is_respected(monkeypatch: pytest.MonkeyPatch, peer: Callable[..., int], scheme: str) -> None:
    received: list[bytes] = []
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{peer(lambda c: received.append(c.recv(1000)))}")
    monkeypatch.setenv("no_proxy", "example.com,192.0.2.0/24")
    with Client(f"{scheme}://192.0.2.1:8000", timeout=0.3) as client, pytest.raises(ServerError) as caught:
        client.generate(b"photo", "a man")
    assert "proxy" not in str(caught.value)
    assert not received


@pytest.mark.parametrize(
    ("host", "no_proxy", "proxied"),
    [
        ("gpu.example.com", "", True),
        ("gpu.example.com", "*", False),
        ("gpu.example.com", "example.com", False),
        ("gpu.example.com", ".example.com", False),
        ("gpu.example.com", "*.example.com", False),
        ("GPU.Example.com.", "example.COM", False),
        ("example.com", "example.com", False),
        ("badexample.com", "example.com", True),
        ("gpu.example.com", "other.org  example.com", False),
        ("gpu.example.com", "example.com:8000", False),
        ("gpu.example.com", "example.com:9000", True),
        ("gpu.example.com", ",,. ,", True),
        ("10.1.2.3", "10.0.0.0/8", False),
        ("10.1.2.3", "10.1.2.3:8000", False),
        ("10.1.2.3", "10.1.2.4", True),
        ("11.1.2.3", "10.0.0.0/8", True),
        ("fd00::5", "fd00::/8", False),
        ("fd00::5", "[fd00::5]", False),
        ("fd00::5", "[fd00::5]:8000", False),
        ("fd00::5", "fd01::/16", True),
        ("localhost", "", False),
        ("api.localhost", "", False),
        ("127.8.9.10", "", False),
        ("::1", "", False),
        ("::ffff:127.0.0.1", "", False),
        ("0.0.0.0", "", False),
        ("0x7f.1", "", False),
        ("localhost.example.com", "", True),
    ],
)
def test_the_rule(monkeypatch: pytest.MonkeyPatch, host: str, no_proxy: str, *, proxied: bool) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://proxy:3128")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert proxy_of(host, 8000) == (Proxy("proxy", 3128) if proxied else None)


@pytest.mark.parametrize(
    ("name", "value", "proxy"),
    [
        ("http_proxy", "proxy:3128", Proxy("proxy", 3128)),
        ("http_proxy", "http://proxy", Proxy("proxy", 80)),
        ("http_proxy", "http://[fd00::1]:3128/", Proxy("fd00::1", 3128)),
        ("all_proxy", "http://proxy:3128", Proxy("proxy", 3128)),
        ("http_proxy", "", None),
        ("https_proxy", "http://proxy:3128", None),
        ("grpc_proxy", "http://proxy:3128", None),
    ],
)
def test_the_variables(monkeypatch: pytest.MonkeyPatch, name: str, value: str, proxy: Proxy | None) -> None:
    monkeypatch.setenv(name, value)
    assert proxy_of("gpu.example.com", 8000) == proxy


@pytest.mark.parametrize(
    "value", ["socks5://proxy:1080", "https://me:secret@proxy:443", "http://proxy:port", "http://:8"]
)
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_proxy_of_another_kind(monkeypatch: pytest.MonkeyPatch, scheme: str, value: str) -> None:
    monkeypatch.setenv("http_proxy", value)
    with pytest.raises(
        InvalidOption, match=r"proxy must be http://host:port.*list gpu.example.com in no_proxy"
    ) as caught:
        connect(f"{scheme}://gpu.example.com:8000")
    assert "secret" not in str(caught.value)
    connect(f"{scheme}://localhost:8000")
