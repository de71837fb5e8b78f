"""The paths of KServe's protocol, and the metrics."""

from __future__ import annotations

import logging
import secrets
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from consisid_runtime.door import description
from consisid_runtime.door.http.answer import failure
from consisid_runtime.door.http.inference import WAYS, Inference
from consisid_runtime.door.http.protocol import HEALTH
from consisid_runtime.door.parts import Parts
from consisid_runtime.errors import ConsisIDError, NotFound, Unauthenticated

log = logging.getLogger(__name__)


class App:
    """An ASGI application on a door's parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        routes = [
            Route("/v2/health/live", self._live),
            Route("/v2/health/ready", self._ready),
            Route("/v2", self._server),
            Route("/v2/repository/index", self._index, methods=["POST"]),
            Route("/metrics", self._metrics),
        ]
        for base in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(base, self._metadata),
                Route(f"{base}/config", self._config),
                Route(f"{base}/ready", self._model_ready),
                *(Route(f"{base}/{way}", Inference(parts, way), methods=["POST"]) for way in WAYS),
            ]
        handlers: Any = {ConsisIDError: self._refused, HTTPException: self._missing, Exception: self._unexpected}
        self._routed = Starlette(routes=routes, exception_handlers=handlers)
        self._routed.router.redirect_slashes = False

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Checks the token of every request but those for health."""
        if scope["type"] == "http" and not scope["path"].startswith(HEALTH):
            try:
                self._parts.access.check(dict(scope["headers"]).get(b"authorization"))
            except Unauthenticated as error:
                self._parts.records.count("http", error.code)
                await failure(error)(scope, receive, send)
                return
        await self._routed(scope, receive, send)

    async def _live(self, request: Request) -> Response:
        return JSONResponse({"live": True})

    async def _ready(self, request: Request) -> Response:
        ready = await self._parts.supervisor.ready()
        return JSONResponse({"ready": ready}, 200 if ready else 503)

    async def _server(self, request: Request) -> Response:
        return JSONResponse(description.server())

    async def _index(self, request: Request) -> Response:
        return JSONResponse(description.index(ready=await self._parts.supervisor.ready()))

    async def _metadata(self, request: Request) -> Response:
        return JSONResponse(description.metadata(_signature(request)))

    async def _config(self, request: Request) -> Response:
        return JSONResponse(description.config(_signature(request)))

    async def _model_ready(self, request: Request) -> Response:
        # Triton server's body is empty, which KServe's own SDK cannot read.
        name = _signature(request).name
        ready = await self._parts.supervisor.ready()
        return JSONResponse({"name": name, "ready": ready}, 200 if ready else 503)

    async def _metrics(self, request: Request) -> Response:
        return Response(await self._parts.metrics(), media_type="text/plain; version=0.0.4")

    async def _refused(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, ConsisIDError)
        return failure(error)

    async def _missing(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        refusal = failure(NotFound(f"there is no {request.method} of this path; docs/requests.md lists what there is"))
        refusal.status_code = error.status_code
        return refusal

    async def _unexpected(self, request: Request, error: Exception) -> Response:
        reference = secrets.token_hex(4)
        log.error("error %s", reference, exc_info=error)
        return failure(ConsisIDError(f"the door failed; the server's log has it as error {reference}"))


def _signature(request: Request) -> Any:
    return description.signature_of(request.path_params["model"], request.path_params.get("version", ""))
