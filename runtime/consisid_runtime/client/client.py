"""The client: sends a portrait and a prompt to a server and returns the video."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType
from typing import Self

from consisid_runtime.client.async_client import AsyncClient
from consisid_runtime.client.threads import wait_for
from consisid_runtime.client.transport import Transport
from consisid_runtime.options import Options
from consisid_runtime.video import Video


class Client:
    """A client of one server. Thread-safe; a context manager. Every call opens a connection of its own.

    While nothing answers at the address, a call tries to connect for up to ten seconds of its timeout; nothing else is
    tried twice. Over HTTP a client also works in forked processes; over gRPC it works in one process, the first that
    calls a server.

    Args:
        server: `grpc://host:port` or `http://host:port`, with TLS `grpcs://` or `https://` (an IPv6 address in
            brackets), or any `Transport`.
        timeout: seconds for one whole call, from resolving the server's name to the last byte of the video, above 0 and
            at most 10⁶. The server is told, and ends its work then.
        token: what the server wants as a bearer token. Default: the environment's `CONSISID_TOKEN`; empty for none.
            Without TLS it is sent to this machine's loopback addresses only.
        ca: PEM file of the certificate authorities whose servers are trusted. Default: those of the system.

    Raises `InvalidOption` for an invalid URL, timeout, token, or proxy in the environment, and for a token that would
    leave the machine unencrypted; `FileInaccessible`.
    """

    def __init__(
        self,
        server: str | Transport,
        *,
        timeout: float = 600.0,
        token: str | None = None,
        ca: str | Path | None = None,
    ) -> None:
        self._client = AsyncClient(server, timeout=timeout, token=token, ca=ca)

    def generate(
        self,
        image: str | Path | bytes | bytearray,
        prompt: str,
        options: Options | None = None,
        *,
        raw_frames: bool = False,
    ) -> Video:
        """Generate one video on the server.

        Args:
            image: the portrait: a path, or a file's bytes (JPEG, PNG, WebP, …), which are sent unchanged.
            prompt: what the video shows.
            options: see `Options`.
            raw_frames: also fetch the decoded frames; `video.frames` are then these instead of the MP4's.

        Raises what `Pipeline.generate` raises, and `ServerUnreachable`, `CertificateRefused`, `Unauthenticated`,
        `Busy` (its `retry_after` says when to send the request again), `ServerDied`, `ServerTimeout`, `ServerError`,
        `ClientClosed` or `ForkedProcess`.
        """
        return wait_for(self._client.generate(image, prompt, options, raw_frames=raw_frames))

    def ready(self) -> bool:
        """Whether the server answers, within the timeout and ten seconds, and has loaded all its models.

        Raises `ClientClosed` or `ForkedProcess`.
        """
        return wait_for(self._client.ready())

    def close(self) -> None:
        """End the calls in flight with `ClientClosed`, and refuse further ones. Idempotent, from any thread."""
        wait_for(self._client.close())

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
