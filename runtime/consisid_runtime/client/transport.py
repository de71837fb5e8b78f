"""What the gRPC and HTTP transports share: their protocol, and the rule by which connecting is tried again."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from consisid_runtime.errors import CertificateRefused, ServerUnreachable

if TYPE_CHECKING:
    from numpy.typing import NDArray

Parameters = Mapping[str, str | int | float | bool]

PATIENCE = 10.0
"""Seconds for which a call tries to connect again while nothing answers at the address: servers restart."""

ATTEMPT = 5.0
"""Seconds for one attempt to connect to one address."""

MAX_ANSWER = 2**31 - 1
"""Bytes of a whole answer: gRPC's limit, and HTTP's here."""

_BACKOFF, _LONGEST_BACKOFF = 0.1, 1.0

Result = TypeVar("Result")


class Transport(Protocol):
    """The way to one server. It keeps no connection between calls, so that any event loop may use it."""

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> dict[str, NDArray[Any]]:
        """Send one inference request and wait for its response; cancelling it cancels the request at the server.

        Args:
            inputs: bytes are sent as UINT8 [n], text as BYTES [1].
            timeout: seconds for the whole call, from resolving the name to the last byte, until `ServerTimeout`. The
                server is told, and ends its work then.
            patience: seconds for which connecting is tried again.

        Returns: the requested outputs that came, by name; BYTES as object arrays of bytes.

        Raises the typed error that the server sent, `ServerUnreachable` after at most `patience` without a connection,
        `CertificateRefused`, `ServerTimeout`, `ServerError` for an answer that is none of Triton server's, or
        `ForkedProcess`.
        """
        ...

    def stream(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> AsyncGenerator[dict[str, NDArray[Any]], None]:
        """Send one request to a model that answers many times; each answer as of `infer`, in one task.

        The last one has `video`. Leaving the iterator ends the request at the server. Raises as `infer`.
        """
        ...

    async def ready(self, timeout: float) -> bool:
        """Whether a server answers within these seconds and has loaded all its models. Raises `ForkedProcess`."""
        ...


async def patiently(attempt: Callable[[], Awaitable[Result]], patience: float) -> Result:
    """What `attempt`, which connects, returns; tried again while it raises `ServerUnreachable`, for these seconds."""
    until, pause = time.monotonic() + patience, _BACKOFF
    while True:
        try:
            return await attempt()
        except CertificateRefused:
            raise
        except ServerUnreachable as error:
            if error.begun or time.monotonic() + pause >= until:
                raise
        await asyncio.sleep(pause)
        pause = min(2 * pause, _LONGEST_BACKOFF)
