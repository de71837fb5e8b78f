"""The application on a port, within the bounds of the door's own HTTP: heads, bodies, connections and slow readers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from consisid_gateway.access.streams import while_valid
from consisid_runtime.door.access import Access
from consisid_runtime.door.http.listener import Listener
from consisid_runtime.door.http.protocol import Interface
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import ConsisIDError, InvalidOption

_HEALTH, _EVENTS = "/healthz", "/events"


@asynccontextmanager
async def serving(
    app: FastAPI,
    guarded: ASGIApp,
    *,
    address: str,
    port: int,
    access: Access,
    limits: Limits,
    told: Callable[[ConsisIDError], bytes],
) -> AsyncIterator[Listener]:
    """Listen within the block. At its end streams of events are ended, and other requests have the grace to end.

    Args:
        app: whose lifespan it is.
        guarded: the same with all that stands around it.
        access: the certificate and the known proxies; its token is not asked for.
        limits: `connections`, `grace`, `image`, and those of heads, bodies and idle connections.
        told: an error as JSON.

    Raises `InvalidOption` for a port that cannot be bound.
    """
    ending = False

    async def valid() -> bool:
        return not ending

    async def around(scope: Scope, receive: Receive, send: Send) -> None:
        stream = scope["method"] == "GET" and scope["path"].endswith(_EVENTS)
        await guarded(scope, while_valid(receive, valid) if stream else receive, send)

    listener = Listener(around, access, limits, Interface(_HEALTH, told))
    async with app.router.lifespan_context(app):
        try:
            await listener.start(address, port)
        except OSError as error:
            raise InvalidOption(f"cannot listen on {address}:{port}: {error.strerror}; choose another port") from error
        try:
            yield listener
        finally:
            ending = True
            await listener.stop()
