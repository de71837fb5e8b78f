"""A caller who does not end its TLS handshake is closed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from consisid_runtime.door.access import Access
from consisid_runtime.door.http import listener
from consisid_runtime.door.limits import Limits
from consisid_runtime.serve.private import make_certificate


@pytest.mark.parametrize("sent", [b"", b"\x16\x03\x01\x02\x00\x01"], ids=["nothing", "a part of a greeting"])
def test_a_handshake_ends_in_time(sent: bytes, tmp_path: Path) -> None:
    key, certificate = make_certificate("localhost")
    (tmp_path / "key.pem").write_bytes(key)
    (tmp_path / "cert.pem").write_bytes(certificate)

    async def main() -> bytes:
        access = Access.read(certificate=tmp_path / "cert.pem", key=tmp_path / "key.pem")
        door = listener.Listener(None, access, Limits(handshake_seconds=0.3))
        await door.start("127.0.0.1", 0)
        assert door._server is not None
        port = door._server.sockets[0].getsockname()[1]
        try:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(sent)
            async with asyncio.timeout(3):
                try:
                    return await reader.read()
                finally:
                    writer.close()
        finally:
            await door.stop()

    assert asyncio.run(main()) == b""
