"""How a request travels: `connect` makes the transport of a URL, `Transport` is all that the client knows of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

from consisid_runtime.errors import InvalidOption

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parameters = Mapping[str, str | int | float | bool]


class Transport(Protocol):
    """One way to a Triton server; used by several threads at once."""

    def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
    ) -> dict[str, NDArray[Any]]:
        """One inference.

        Args:
            inputs: bytes travel as UINT8 [n], text as BYTES [1].
            timeout: seconds until `ServerTimeout`.

        Returns: the outputs asked for, by name; BYTES as object arrays of bytes.

        Raises the typed error that the server sent, `ServerUnreachable` or `ServerTimeout`.
        """
        ...

    def ready(self) -> bool:
        """Whether a server answers and has loaded all its models."""
        ...

    def finished(self) -> dict[str, int]:
        """How many requests each model of the server has finished since it started, well or not.

        A request that was answered just now may still be missing.
        """
        ...

    def close(self) -> None: ...


def connect(url: str) -> Transport:
    """The transport for `grpc://host:port` or `http://host:port`. Raises `InvalidOption`. Nothing is sent yet."""
    try:
        parts = urlsplit(url)
        address = f"{parts.hostname}:{parts.port}"
        complete = bool(parts.hostname and parts.port)
    except ValueError:
        complete = False
    if not complete or parts.scheme not in ("grpc", "http") or parts.path.strip("/") or parts.query or parts.username:
        raise InvalidOption(f"a server's URL is grpc://host:port or http://host:port, got {url!r}")
    if parts.scheme == "grpc":
        from consisid_runtime.client.grpc import GrpcTransport

        return GrpcTransport(address)
    from consisid_runtime.client.http import HttpTransport

    return HttpTransport(address)


def count(statistics: Mapping[str, Any]) -> dict[str, int]:
    """Finished requests by model, from the answer of Triton server's statistics in its JSON form."""
    return {
        model["name"]: sum(int(model["inference_stats"][end].get("count", 0)) for end in ("success", "fail"))
        for model in statistics.get("model_stats", ())
    }
