"""All of the interface as one application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from fastapi import FastAPI

from consisid_gateway.api import characters, choices, document, failures, videos
from consisid_gateway.api.download import content
from consisid_gateway.api.live import stream
from consisid_gateway.api.live.listening import Poller
from consisid_gateway.api.parts import Parts
from consisid_gateway.api.reading.body import Bodies


def make_app(parts: Parts) -> FastAPI:
    """An ASGI application on these parts, which it does not close."""

    @asynccontextmanager
    async def life(app: FastAPI) -> AsyncIterator[None]:
        app.state.parts = parts
        app.state.bodies = Bodies(parts.upload_bytes, parts.upload_seconds, parts.bodies)
        app.state.poller = Poller(parts.database)
        try:
            yield
        finally:
            await app.state.poller.close()

    app = FastAPI(
        title="ConsisID videos",
        version="1",
        description="OpenAI's `/v1/videos`, with identity: a portrait, or a character, and a prompt become a video.",
        lifespan=life,
        docs_url=None,  # they would load scripts of another host
        redoc_url=None,
        redirect_slashes=False,
    )
    # Before those with an id in their path, which "characters" would be taken for.
    for router in (choices.router, characters.router, videos.router, content.router, stream.router):
        app.include_router(router)
    failures.install(app)
    document.install(app)
    return app
