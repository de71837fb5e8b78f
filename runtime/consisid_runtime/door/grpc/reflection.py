"""gRPC's reflection, by which grpcurl and others know the service without its description."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from google.protobuf.message import DecodeError
from grpc_reflection.v1alpha import reflection_pb2
from grpc_reflection.v1alpha.reflection import aio

from consisid_runtime.door.grpc.exchange import read, write
from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import MalformedRequest, RequestTooLarge

# The messages of both versions are the same on the wire.
NAMES = tuple(f"grpc.reflection.{version}.ServerReflection" for version in ("v1", "v1alpha"))
CALLS = tuple(f"/{name}/ServerReflectionInfo" for name in NAMES)

_SMALL = 2**12
_QUESTIONS = 256
"""Of one call."""


class Reflection:
    """On the descriptions that are loaded.

    Args:
        services: their full names.
    """

    def __init__(self, services: tuple[str, ...], limits: Limits) -> None:
        self._answers = aio.ReflectionServicer((*services, *NAMES))
        self._limits = limits

    async def answer(self, context: Any) -> None:
        """Answer all questions of one call. Raises `ServerTimeout`, `RequestTooLarge` or `MalformedRequest`."""
        async for answer in self._answers.ServerReflectionInfo(self._questions(context), context):
            await write(context, answer, self._limits)

    async def _questions(self, context: Any) -> AsyncIterator[Any]:
        for _ in range(_QUESTIONS):
            data = await read(context, self._limits.idle_seconds)
            if data is None:
                return
            if len(data) > _SMALL:
                raise RequestTooLarge(f"a question has at most {_SMALL} bytes, got {len(data)}")
            try:
                yield reflection_pb2.ServerReflectionRequest.FromString(data)
            except DecodeError:
                raise MalformedRequest("this is no ServerReflectionRequest") from None
        raise MalformedRequest(f"a call takes at most {_QUESTIONS} questions")
