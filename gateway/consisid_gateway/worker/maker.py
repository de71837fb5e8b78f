"""What makes videos for a worker: a server that it reaches as every client does."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol

from consisid_runtime import Client, Options
from consisid_runtime.errors import ConsisIDError, ServerUnreachable, Unauthenticated
from consisid_runtime.events import Event
from consisid_runtime.video import Video

log = logging.getLogger(__name__)


class Making(Protocol):
    """One request that runs: an iterator of events, and the video as its last item."""

    def __iter__(self) -> Iterator[Event | Video]: ...

    def __next__(self) -> Event | Video: ...

    def cancel(self) -> None:
        """From any thread; the iteration then raises `RequestCancelled`."""


class Maker(Protocol):
    """Errors are those of `Client`."""

    def make(
        self,
        portrait: bytes,
        prompt: str,
        options: Options,
        *,
        urgent: bool,
        checkpoint: bytes | None,
        trace: str | None,
    ) -> Making:
        """`trace` is the traceparent of the request that the video was asked for by."""

    def identify(self, portrait: bytes, options: Options) -> Mapping[str, Any]:
        """What was read of the face: `Identity.info`."""

    def ready(self) -> bool: ...


class ServerMaker:
    """The door of `consisid serve`.

    Args:
        client: a client of it, whose requests belong to a trace, by its traceparent; None for to none.
        checkpoint_seconds: between two checkpoints; the server makes one at the end of a part of a request.
    """

    def __init__(self, client: Callable[[str | None], Client], checkpoint_seconds: float) -> None:
        self._client, self._of_trace = client(None), client
        self._checkpoint_seconds = checkpoint_seconds
        self._welcome = self._told = False

    def make(
        self,
        portrait: bytes,
        prompt: str,
        options: Options,
        *,
        urgent: bool,
        checkpoint: bytes | None,
        trace: str | None,
    ) -> Making:
        return self._of_trace(trace).stream(
            portrait,
            prompt,
            options,
            urgent=urgent,
            previews=True,
            checkpoint_seconds=self._checkpoint_seconds,
            checkpoint=checkpoint,
        )

    def identify(self, portrait: bytes, options: Options) -> Mapping[str, Any]:
        identity = self._client.identify(portrait, options)
        self._client.forget(identity)
        return identity.info

    def ready(self) -> bool:
        """Also whether the server takes this worker's token, which its readiness does not tell."""
        if not self._client.ready():
            self._welcome = False  # it may come back with another token
            return False
        if not self._welcome:
            self._welcome = self._takes_token()
        return self._welcome

    def _takes_token(self) -> bool:
        try:
            self._client.estimate(Options())
        except Unauthenticated as error:
            if not self._told:
                log.error("no jobs are taken: %s", error)
            self._told = True
            return False
        except ServerUnreachable:
            return False
        except ConsisIDError:
            pass  # of somebody whose token it has taken
        self._told = False
        return True
