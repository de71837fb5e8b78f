"""The protocol that the client and its gRPC and HTTP transports share."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parameters = Mapping[str, str | int | float | bool]

PATIENCE = 10.0
"""Seconds for which a call tries to connect again while nothing answers at the address: servers restart."""


class Transport(Protocol):
    """A connection to one Triton server. Thread-safe."""

    def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
    ) -> dict[str, NDArray[Any]]:
        """Send one inference request and wait for its response.

        Args:
            inputs: bytes are sent as UINT8 [n], text as BYTES [1].
            timeout: seconds for the whole call, from resolving the name to the last byte, until `ServerTimeout`.

        Returns: the requested outputs that came, by name; BYTES as object arrays of bytes.

        Raises the typed error that the server sent, `ServerUnreachable` after at most `PATIENCE` without a connection,
        `ServerTimeout`, `ServerError` for an answer that is none of Triton server's, `ClientClosed` or `ForkedProcess`.
        """
        ...

    def ready(self) -> bool:
        """Whether a server answers and has loaded all its models. Raises `ClientClosed` or `ForkedProcess`."""
        ...

    def close(self) -> None:
        """End the calls in flight with `ClientClosed`, and refuse further ones. Idempotent, from any thread."""
        ...
