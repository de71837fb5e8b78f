"""What every answer carries for the browser that may read it."""

from __future__ import annotations

from collections.abc import Collection

from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consisid_gateway.access.sites import origin

_REQUEST = ("authorization", "content-type", "idempotency-key", "last-event-id")
_ANSWER = ("openai-poll-after-ms", "retry-after", "x-request-id", "content-disposition", "content-range")
_PREFLIGHT_SECONDS = 600


class SecurityHeaders:
    """An ASGI application around another one. A header that the answer has already stays as it is.

    Scripts and styles come from the gateway's own files alone; pictures and videos also from what the page itself made
    of bytes that it fetched with its key.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app
        policy = {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' blob: data:",
            "media-src": "'self' blob:",
            "connect-src": "'self'",
            "font-src": "'self'",
            "manifest-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
            # A browser then refuses text as markup, wherever a script gets it from.
            "require-trusted-types-for": "'script'",
            "trusted-types": "'none'",
        }
        self._fields = {
            "content-security-policy": "; ".join(f"{name} {value}" for name, value in policy.items()),
            "x-content-type-options": "nosniff",
            "referrer-policy": "no-referrer",
            "permissions-policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
            "cross-origin-opener-policy": "same-origin",
            "cross-origin-resource-policy": "same-origin",
            # Answers are somebody's jobs, faces and videos; the page's own files say otherwise themselves.
            "cache-control": "private, no-store",
        }

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def add(message: Message) -> None:
            if message["type"] == "http.response.start":
                fields = MutableHeaders(scope=message)
                for name, value in self._fields.items():
                    fields.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, add)


def cross_origin(app: ASGIApp, origins: Collection[str]) -> ASGIApp:
    """The application as pages of these other origins may call it; without any, as none may.

    Raises `InvalidOption` for what is no origin.
    """
    if not origins:
        return app
    return CORSMiddleware(
        app,
        allow_origins=[origin(each) for each in origins],
        allow_methods=("GET", "POST", "DELETE"),
        allow_headers=_REQUEST,
        expose_headers=_ANSWER,
        max_age=_PREFLIGHT_SECONDS,
    )
