"""Tokens and TLS: against the door's own, and what a client refuses to send or to trust."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from consisid_runtime import AsyncClient, Client
from consisid_runtime.client.access import Access
from consisid_runtime.client.connect import connect
from consisid_runtime.door.access import Access as DoorAccess
from consisid_runtime.door.door import Door
from consisid_runtime.errors import (
    CertificateRefused,
    FileInaccessible,
    InvalidOption,
    ServerUnreachable,
    Unauthenticated,
)
from consisid_runtime.serve.private import make_certificate
from consisid_runtime.serve.tritonserver import TritonServer
from consisid_runtime.wire import TOKEN_VARIABLE

TOKEN = "a-token-of-some-length"
SCHEMES = ("grpc", "http")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (TOKEN_VARIABLE, "http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with door.pem and key.pem, of the host localhost, and other.pem, of nobody that serves."""
    folder = tmp_path_factory.mktemp("tls")
    key, pem = make_certificate("localhost")
    (folder / "key.pem").write_bytes(key)
    (folder / "door.pem").write_bytes(pem)
    (folder / "other.pem").write_bytes(make_certificate("localhost")[1])
    return folder


@pytest.fixture(scope="module")
def urls(
    tiny_repository: Path, certificates: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Scheme → URL of a door with TLS and a token, by the name in its certificate."""
    (folder := tmp_path_factory.mktemp("token")).joinpath("token").write_text(TOKEN)
    access = DoorAccess.read(folder / "token", certificates / "door.pem", certificates / "key.pem")
    with Door(TritonServer(tiny_repository, private=True, ready_timeout=60), access=access) as door:
        yield {"grpc": door.grpc_url, "http": door.http_url}


def named(url: str) -> str:
    return url.replace("127.0.0.1", "localhost")


@pytest.mark.server
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_video_over_tls_with_a_token(
    urls: dict[str, str], certificates: Path, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    url, ca = named(urls[scheme]), certificates / "door.pem"
    assert url.startswith(f"{scheme}s://")
    with Client(url, timeout=30, token=TOKEN, ca=ca) as client:
        assert client.ready()
        assert client.generate(b"photo", "a man").mp4 == b"photo"
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    assert Client(url, timeout=30, ca=str(ca)).generate(b"photo", "a man").mp4 == b"photo"


@pytest.mark.server
@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_same_asynchronously(urls: dict[str, str], certificates: Path, scheme: str) -> None:
    async def ask() -> bytes:
        async with AsyncClient(named(urls[scheme]), timeout=30, token=TOKEN, ca=certificates / "door.pem") as client:
            assert await client.ready()
            return (await client.generate(b"photo", "a man")).mp4

    assert asyncio.run(ask()) == b"photo"


@pytest.mark.server
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize("token", ["", "another-token-of-some-length"])
def test_a_wrong_token(urls: dict[str, str], certificates: Path, scheme: str, token: str) -> None:
    with (
        Client(named(urls[scheme]), timeout=30, token=token, ca=certificates / "door.pem") as client,
        pytest.raises(Unauthenticated) as refused,
    ):
        client.generate(b"photo", "a man")
    assert not token or token not in f"{refused.value!r}{refused.value.__cause__!r}{client!r}{vars(client)}"


@pytest.mark.server
@pytest.mark.parametrize("scheme", SCHEMES)
@pytest.mark.parametrize(("host", "ca"), [("localhost", "other.pem"), ("localhost", None), ("127.0.0.1", "door.pem")])
def test_a_certificate_that_is_not_trusted(
    urls: dict[str, str], certificates: Path, scheme: str, host: str, ca: str | None
) -> None:
    url = urls[scheme].replace("127.0.0.1", host)
    begin = time.monotonic()
    with (
        Client(url, timeout=30, token=TOKEN, ca=ca and certificates / ca) as client,
        pytest.raises(CertificateRefused, match=f"{scheme}s://{host}:") as refused,
    ):
        client.generate(b"photo", "a man")
    assert time.monotonic() - begin < 2, "connecting again would not help"
    assert not refused.value.begun and TOKEN not in str(refused.value)


@pytest.mark.server
@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_client_without_tls(urls: dict[str, str], scheme: str) -> None:
    with (
        Client(urls[scheme].replace("s://", "://"), timeout=1, token=TOKEN) as client,
        pytest.raises(ServerUnreachable),
    ):
        client.generate(b"photo", "a man")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_server_without_tls(stand_in: Callable[..., Any], unused_port: int, scheme: str) -> None:
    stand_in(scheme, unused_port)
    with Client(f"{scheme}s://localhost:{unused_port}", timeout=1) as client:
        assert not client.ready()
        with pytest.raises(ServerUnreachable):
            client.generate(b"photo", "a man")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_token_never_leaves_the_machine_unencrypted(monkeypatch: pytest.MonkeyPatch, scheme: str) -> None:
    for kind in (Client, AsyncClient):
        with pytest.raises(InvalidOption, match=rf"unencrypted; use {scheme}s://") as refused:
            kind(f"{scheme}://gpu.example.com:8000", token=TOKEN)
        assert TOKEN not in str(refused.value)
    monkeypatch.setenv(TOKEN_VARIABLE, TOKEN)
    with pytest.raises(InvalidOption, match="unencrypted"):
        Client(f"{scheme}://192.0.2.1:8000")
    Client(f"{scheme}://192.0.2.1:8000", token="")
    Client(f"{scheme}s://192.0.2.1:8000")
    for host in ("localhost", "127.0.0.1", "[::1]"):
        Client(f"{scheme}://{host}:8000")


@pytest.mark.parametrize("token", ["two words", "tab\t", "line\nX-Header: 1", "schlüssel", "x" * 5000, 7])
def test_tokens_that_no_header_carries(token: Any) -> None:
    with pytest.raises(InvalidOption, match="a token is at most 4096 visible ASCII characters") as refused:
        Client("http://localhost:8000", token=token)
    assert str(token) not in str(refused.value)


def test_files_that_are_no_authorities(tmp_path: Path, certificates: Path) -> None:
    (tmp_path / "garbage.pem").write_bytes(b"\xff\x00garbage")
    (tmp_path / "empty.pem").write_bytes(b"")
    for name in ("garbage.pem", "empty.pem"):
        with pytest.raises(InvalidOption, match=f"{name} holds no certificates in PEM"):
            Client("https://localhost:8000", ca=tmp_path / name)
    with pytest.raises(InvalidOption, match="holds no certificates"):
        Client("https://localhost:8000", ca=certificates / "key.pem")
    for path in (tmp_path / "none.pem", tmp_path, "a\0b"):
        with pytest.raises(FileInaccessible, match="cannot be read"):
            Client("https://localhost:8000", ca=path)


def test_both_protocols_trust_the_systems_authorities(monkeypatch: pytest.MonkeyPatch, certificates: Path) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates / "door.pem"))
    assert Access().grpc_roots() == (certificates / "door.pem").read_bytes()
    assert Access().context().cert_store_stats()["x509"] == 1


def test_through_a_proxy_only_the_encrypted_bytes_go(monkeypatch: pytest.MonkeyPatch, peer: Callable[..., int]) -> None:
    received: list[bytes] = []

    def tunnel(connection: Any) -> None:
        received.append(connection.recv(2**16))
        connection.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
        received.append(connection.recv(2**16))

    monkeypatch.setenv("https_proxy", f"http://me:secret@127.0.0.1:{peer(tunnel)}")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    client = Client("https://gpu.example.com:8443", timeout=1, token=TOKEN)
    with pytest.raises(ServerUnreachable, match=r"https://gpu.example.com:8443 through the proxy") as caught:
        client.generate(b"photo", "a man")
    assert received[0].startswith(b"CONNECT gpu.example.com:8443 HTTP/1.1\r\n")
    assert b"Proxy-Authorization: Basic " in received[0] and b"authorization: Bearer" not in received[0].lower()
    assert received[1][:1] == b"\x16", "a TLS handshake"
    assert "secret" not in str(caught.value) and TOKEN.encode() not in b"".join(received)


def test_a_proxy_that_refuses(monkeypatch: pytest.MonkeyPatch, answering: Callable[[bytes], int]) -> None:
    port = answering(b"HTTP/1.1 407 Proxy Authentication Required\r\nContent-Length: 0\r\n\r\n")
    monkeypatch.setenv("https_proxy", f"http://127.0.0.1:{port}")
    with pytest.raises(Exception, match="the proxy answered with HTTP status 407"):
        Client("https://gpu.example.com:8443", timeout=5).generate(b"photo", "a man")


def test_a_transport_does_not_show_its_token() -> None:
    for scheme in SCHEMES:
        assert TOKEN not in repr(connect(f"{scheme}s://localhost:1", Access(TOKEN)))
    assert TOKEN not in repr(Access(TOKEN))
