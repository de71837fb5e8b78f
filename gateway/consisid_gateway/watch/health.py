"""Whether a gateway lives, whether it can accept a job, and its metrics: a router of FastAPI."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from fastapi import APIRouter, Request
from starlette.responses import JSONResponse, Response

from consisid_gateway.access.authentication import caller_of
from consisid_gateway.access.caller import Scope
from consisid_gateway.errors import StorageUnavailable, VideoExpired
from consisid_gateway.jobs import workers
from consisid_gateway.jobs.database import Database
from consisid_gateway.objects.store import Store
from consisid_gateway.watch.meters import Meters

OPEN = ("/healthz", "/readyz")
"""Need no key: they tell of no job."""
_FRESH_SECONDS = 1.0
_PATIENCE_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a gateway needs to accept a job, and what its jobs need to be made.

    Attributes:
        workers: whose servers answer. Without one a job is accepted, and waits.
    """

    database: bool
    store: bool
    workers: int

    @property
    def ready(self) -> bool:
        return self.database and self.store

    def shown(self) -> dict[str, Any]:
        lacks = {"database": self.database, "store": self.store, "worker": self.workers > 0}
        return {
            "ready": self.ready,
            "database": self.database,
            "store": self.store,
            "workers": self.workers,
            "missing": [name for name, there in lacks.items() if not there],
        }


class Health:
    """Of one replica. Any number of questions at once is one to the database and the store."""

    def __init__(self, database: Database, store: Store) -> None:
        self._database, self._store = database, store
        self._asking: asyncio.Task[Readiness] | None = None
        self._at = float("-inf")

    async def ready(self) -> Readiness:
        """As it is now, or was a second ago; of what does not answer within four seconds, that it does not."""
        running = self._asking is not None and not self._asking.done()
        if self._asking is None or (not running and time.monotonic() - self._at > _FRESH_SECONDS):
            self._at = time.monotonic()
            self._asking = asyncio.create_task(self._ask())
        try:
            return await asyncio.wait_for(asyncio.shield(self._asking), _PATIENCE_SECONDS)
        except TimeoutError:
            return Readiness(False, False, 0)

    async def _ask(self) -> Readiness:
        found, store = await asyncio.gather(
            asyncio.to_thread(_quietly, self._workers), asyncio.to_thread(_quietly, self._look)
        )
        return Readiness(found is not None, store is not None, found or 0)

    def _workers(self) -> int:
        with self._database.reading() as connection:
            return workers.ready(connection)

    def _look(self) -> int:
        try:
            return self._store.size("ready")
        except VideoExpired:
            return 0  # it answered that there is none


def _quietly(ask: Callable[[], int]) -> int | None:
    try:
        return ask()
    except StorageUnavailable:
        return None


def router(health: Health, meters: Meters) -> APIRouter:
    """`/healthz`, `/readyz` and `/metrics`; the last wants a key with its scope."""
    routes = APIRouter(tags=["operation"])

    @routes.get("/healthz", summary="Whether the process answers")
    async def healthz() -> dict[str, bool]:
        return {"alive": True}

    @routes.get("/readyz", summary="Whether a job could be accepted", responses={503: {"description": "It could not"}})
    async def readyz() -> JSONResponse:
        found = await health.ready()
        return JSONResponse(found.shown(), 200 if found.ready else 503)

    @routes.get("/metrics", summary="Metrics for Prometheus", response_class=Response)
    async def metrics(request: Request) -> Response:
        caller_of(request).require(Scope.METRICS)
        return Response(await asyncio.to_thread(meters.text), media_type="text/plain; version=0.0.4")

    return routes
