"""Every error as the JSON that the official SDK reads: `{"error": {"message", "type", "code", "param", "remedy"}}`."""

from __future__ import annotations

import logging
import math
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from consisid_gateway.errors import RangeRefused, StorageUnavailable
from consisid_runtime.errors import ConsisIDError, InvalidOption, NotFound, RequestTooLarge

log = logging.getLogger(__name__)
_RETRY = 2.0
"""Seconds after which a database or a store that did not answer may be back."""


class FieldRefused(Exception):
    """An error and the field of the request that it is about."""

    def __init__(self, error: ConsisIDError, field: str) -> None:
        super().__init__(str(error))
        self.error, self.field = error, field


@contextmanager
def of_field(name: str) -> Iterator[None]:
    """An error in this block is one of this field: raises `FieldRefused`."""
    try:
        yield
    except ConsisIDError as error:
        raise FieldRefused(error, name) from error


def failure(error: ConsisIDError, param: str | None = None) -> Response:
    """An error's answer."""
    told = {
        "message": _sent(str(error)),
        "type": "server_error" if error.http >= 500 else "invalid_request_error",
        "code": error.code,
        "param": None if param is None else _sent(param),
        "remedy": error.remedy,
    }
    headers = {}
    after = _RETRY if isinstance(error, StorageUnavailable) else getattr(error, "retry_after", None)
    if after is not None:
        headers["Retry-After"] = str(math.ceil(after))
    if error.http == 401:
        headers["WWW-Authenticate"] = "Bearer"
    if isinstance(error, RangeRefused):
        headers["Content-Range"] = f"bytes */{error.size}"
    if isinstance(error, RequestTooLarge):
        headers["Connection"] = "close"  # what was not read of it is not waited for
    return JSONResponse({"error": told}, error.http, headers)


def _sent(text: str) -> str:
    """Without halves of characters, which JSON can name and UTF-8 cannot encode."""
    return text.encode(errors="replace").decode()


def install(app: FastAPI) -> None:
    """Have all errors of an application answered so."""
    handlers: dict[Any, Any] = {
        ConsisIDError: _refused,
        FieldRefused: _of_field,
        RequestValidationError: _invalid,
        HTTPException: _missing,
    }
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    app.add_middleware(Unexpected)


class Unexpected:
    """What nobody expected: an error id for the caller, the traceback for the log."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        begun = False

        async def watched(message: Message) -> None:
            nonlocal begun
            begun = begun or message["type"] == "http.response.start"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if scope["type"] != "http" or begun:
                raise
            scope.setdefault("state", {})["code"] = ConsisIDError.code
            reference = secrets.token_hex(4)
            log.error("error %s", reference, exc_info=error)
            answer = failure(ConsisIDError(f"an unexpected failure; the gateway's log has it as error {reference}"))
            await answer(scope, receive, send)


def _answer(request: Request, error: ConsisIDError, param: str | None = None) -> Response:
    request.scope.setdefault("state", {})["code"] = error.code  # for those around the application that count
    return failure(error, param)


async def _refused(request: Request, error: ConsisIDError) -> Response:
    return _answer(request, error)


async def _of_field(request: Request, refused: FieldRefused) -> Response:
    return _answer(request, refused.error, refused.field)


async def _invalid(request: Request, error: RequestValidationError) -> Response:
    """A parameter of the query or of the path; bodies are not FastAPI's."""
    first = error.errors()[0]
    name = str(first["loc"][-1])
    return _answer(request, InvalidOption(f"{name}: {first['msg'][:200]}, got {str(first.get('input'))[:100]!r}"), name)


async def _missing(request: Request, error: HTTPException) -> Response:
    answer = _answer(request, NotFound(f"there is no {request.method} of this path; /openapi.json lists what there is"))
    answer.status_code = error.status_code
    answer.headers.update(error.headers or {})
    return answer
