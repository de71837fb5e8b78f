"""The bytes of a request, counted while they arrive; JSON and forms as the same fields."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.requests import ClientDisconnect, Request

from consisid_gateway.access.caller import Caller
from consisid_gateway.api.reading.multipart import MOST_TEXT, Form
from consisid_gateway.api.threads import beside
from consisid_gateway.errors import BodyUnreadable
from consisid_runtime.door.admission.budget import Budget
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import RequestCancelled, RequestTooLarge
from consisid_runtime.files.json_file import parse_json

Fields = Mapping[str, Any]
"""Name → a text or a file's bytes of a form, or any value of JSON."""

_BRACKETS = Limits().brackets
_FORM, _JSON = "multipart/form-data", "application/json"
_OVERHEAD = 2**16
"""Bytes of a form beside its parts' content."""


class Bodies:
    """Reads the bodies of one replica.

    Args:
        upload_bytes: of a file, at most.
        seconds: in which a body has to arrive.
        at_once: bodies of the largest size that are in memory at the same time. One tenant has a share of this room.
    """

    def __init__(self, upload_bytes: int, seconds: float, at_once: int) -> None:
        self._upload, self._seconds = upload_bytes, seconds
        self._budget = Budget(Limits(in_flight=at_once * self._most(_JSON), body_seconds=seconds))

    @property
    def used(self) -> int:
        """Bytes that are held for bodies."""
        return self._budget.used

    def _most(self, kind: str) -> int:
        # In JSON a file is Base64: four bytes for three.
        return MOST_TEXT + _OVERHEAD + (self._upload if kind == _FORM else (self._upload + 2) // 3 * 4)

    @asynccontextmanager
    async def read(self, request: Request, caller: Caller) -> AsyncIterator[Fields]:
        """The fields of a body, for whose bytes there is room within the block.

        Raises `RequestTooLarge` before a byte is read where the head tells the size, `BodyUnreadable`, `Busy` where
        there is no room for it in time, and `RequestCancelled` for a caller who leaves or is too slow.
        """
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in (_FORM, _JSON):
            raise BodyUnreadable(f"a request is {_JSON} or {_FORM}, got {kind[:80]!r}")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise BodyUnreadable("a body comes without content-encoding")
        most = self._most(kind)
        told = request.headers.get("content-length", str(most))
        if not (told.isascii() and told.isdigit()) or len(told) > 15 or int(told) > most:
            raise _too_large(most)
        async with self._budget.reserve(caller.tenant, int(told)):
            yield await self._fields(request, kind, most)

    def room(self, caller: Caller, size: int) -> AbstractAsyncContextManager[Any]:
        """For a portrait that is read from the store, within the block. Raises `Busy`."""
        return self._budget.reserve(caller.tenant, size)

    async def _fields(self, request: Request, kind: str, most: int) -> Fields:
        try:
            async with asyncio.timeout(self._seconds):
                if kind == _FORM:
                    return await self._form(request, most)
                content = b"".join([piece async for piece in _bounded(request, most)])
        except TimeoutError:
            raise RequestCancelled(f"the body did not arrive within {self._seconds:g} s") from None
        except ClientDisconnect:
            raise RequestCancelled("the caller left before the request had arrived") from None
        return await beside(lambda: _object(content, most))

    async def _form(self, request: Request, most: int) -> Fields:
        form = Form(request.headers["content-type"], self._upload)
        async for piece in _bounded(request, most):
            form.write(piece)
        form.close()
        return form.parts


async def _bounded(request: Request, most: int) -> AsyncIterator[bytes]:
    size = 0
    async for piece in request.stream():
        size += len(piece)
        if size > most:
            raise _too_large(most)
        yield piece


def _too_large(most: int) -> RequestTooLarge:
    return RequestTooLarge(f"the body has more than the {most} bytes that are read of such a request")


def _object(content: bytes, most: int) -> Fields:
    if content.count(b"[") + content.count(b"{") > _BRACKETS:  # each becomes an object of 56 bytes or more
        raise BodyUnreadable(f"the JSON has more than {_BRACKETS} brackets; send a prompt with many in a form")
    try:
        value = parse_json(content, most=most)
    except ValueError as error:
        raise BodyUnreadable(f"the body is not JSON: {str(error)[:200]}") from None
    if not isinstance(value, dict):
        raise BodyUnreadable("the JSON is no object")
    return value
