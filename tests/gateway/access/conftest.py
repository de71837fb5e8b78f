"""A database, and an application behind what guards it."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp
from whole import Answer

from consisid_gateway.access import keys
from consisid_gateway.access.authentication import caller_of
from consisid_gateway.api.failures import failure
from consisid_gateway.api.guarded import Exposure, guarded
from consisid_gateway.jobs.database import Database
from consisid_gateway.watch.meters import Meters

ME = "127.0.0.1:8000"


@pytest.fixture
def either(database_url: str) -> Iterator[Database]:
    """Of both kinds."""
    made = Database(database_url)
    yield made
    made.close()


@pytest.fixture
def database(sqlite_template: Path, tmp_path: Path) -> Iterator[Database]:
    """Of SQLite: where the statements are the same, one kind is enough."""
    shutil.copy(sqlite_template, tmp_path / "database")
    made = Database(f"sqlite:///{tmp_path / 'database'}")
    yield made
    made.close()


@pytest.fixture
def key(database: Database) -> Callable[..., str]:
    """Makes one."""

    def make(tenant: str = "ada", **named: Any) -> str:
        with database.transaction() as connection:
            return keys.make(connection, tenant, **named)[0]

    return make


@dataclass
class Gate:
    """An application that tells who calls, behind its guards; `served` are the requests that reached it."""

    database: Database
    exposure: Exposure = field(default_factory=Exposure)
    served: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        async def who(request: Request) -> Response:
            self.served.append(request.url.path)
            caller = caller_of(request)
            return JSONResponse({"tenant": caller.tenant, "key": caller.key, "scopes": sorted(caller.scopes)})

        async def page(request: Request) -> Response:
            return Response("<html>", media_type="text/html", headers={"Cache-Control": "no-cache"})

        methods = ["GET", "POST", "DELETE"]
        routes = [Route("/", page), Route("/healthz", page), Route("/v1/{rest:path}", who, methods=methods)]
        self.meters = Meters(self.database, lambda: 0)
        self.around(Starlette(routes=routes))

    def around(self, app: ASGIApp) -> None:
        """Guard this application instead."""
        self.app = guarded(app, self.database, self.exposure, self.meters, failure)

    def ask(
        self,
        path: str = "/v1/videos",
        *,
        method: str = "GET",
        key: str | None = None,
        query: str = "",
        peer: str = "127.0.0.1",
        **headers: str,
    ) -> Answer:
        return asyncio.run(self.asking(path, method=method, key=key, query=query, peer=peer, **headers))

    async def asking(
        self,
        path: str,
        *,
        method: str = "GET",
        key: str | None,
        query: str = "",
        peer: str = "127.0.0.1",
        unended: bool = False,
        **headers: str,
    ) -> Answer:
        fields = {"host": ME} | {name.replace("_", "-"): value for name, value in headers.items()}
        if key is not None:
            fields["authorization"] = f"Bearer {key}"
        scope = {
            "type": "http",
            "method": method,
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in fields.items()],
            "client": (peer, 4242),
            "server": ("127.0.0.1", 8000),
            "scheme": "http",
            "http_version": "1.1",
            "state": {},
        }
        messages: list[Any] = []

        asked = iter(range(2**30))

        async def receive() -> Any:
            if next(asked) and unended:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Any) -> None:
            messages.append(message)

        await self.app(scope, receive, send)
        head, *rest = messages or [{"status": 0, "headers": []}]
        sent = {name.decode(): value.decode() for name, value in head["headers"]}
        return Answer(head["status"], sent, b"".join(message["body"] for message in rest))


@pytest.fixture
def gate(database: Database) -> Gate:
    """Bound to an address that others reach: keys are asked for."""
    return Gate(database, Exposure("0.0.0.0"))


@pytest.fixture
def local(database: Database) -> Gate:
    """Bound to loopback."""
    return Gate(database)


@pytest.fixture
def behind(database: Database) -> Callable[..., Gate]:
    """Makes one that is exposed in another way."""
    return lambda **named: Gate(database, Exposure(**named))
