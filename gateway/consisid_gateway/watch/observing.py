"""Counts the requests of a gateway, those too that no route was found for."""

from __future__ import annotations

import time
from typing import Any

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consisid_gateway.watch.meters import Meters

OTHER = "other"
"""The route of what has none, so that nobody can make any number of names."""
_METHODS = frozenset({"GET", "HEAD", "POST", "DELETE", "OPTIONS"})


class Observing:
    """An ASGI application around another one, which leaves the code of an error in the request's state as `code`."""

    def __init__(self, app: ASGIApp, meters: Meters) -> None:
        self._app, self._meters = app, meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began = time.perf_counter()
        state: dict[str, Any] = scope.setdefault("state", {})

        async def watch(message: Message) -> None:
            if message["type"] == "http.response.start":
                route = getattr(scope.get("route"), "path", OTHER)
                method = scope["method"] if scope["method"] in _METHODS else OTHER
                seconds = time.perf_counter() - began
                self._meters.answered(method, route, message["status"], seconds, state.get("code"))
            await send(message)

        await self._app(scope, receive, watch)
