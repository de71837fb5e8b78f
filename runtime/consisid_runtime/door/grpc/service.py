"""Answers KServe's calls and gRPC's health check. Every other call is unimplemented, by gRPC itself.

Each call is registered as a stream of bytes, the same on the wire: only so does nothing arrive before its memory is
reserved, in a time that is bounded, and only so is an answer bounded that the caller does not take.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections import Counter
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import grpc
from google.protobuf.json_format import ParseDict
from google.protobuf.message import DecodeError, Message
from grpc_health.v1 import health_pb2
from tritonclient.grpc import model_config_pb2, service_pb2

from consisid_runtime.door import description
from consisid_runtime.door.access import owner
from consisid_runtime.door.grpc.exchange import host, named, read, write
from consisid_runtime.door.grpc.failure import metadata, status
from consisid_runtime.door.grpc.message import parse
from consisid_runtime.door.grpc.reflection import CALLS, Reflection
from consisid_runtime.door.grpc.stream import Stream
from consisid_runtime.door.parts import Parts
from consisid_runtime.door.records import CURRENT
from consisid_runtime.errors import Busy, ConsisIDError, MalformedRequest, RequestTooLarge, Unauthenticated

Call = Callable[[Any], Awaitable[Any]]
"""From a call's context to its answer, a message; None where the call has written it."""

KSERVE, HEALTH = "inference.GRPCInferenceService", "grpc.health.v1.Health"
_SMALL = 2**16
"""Bytes of a message that is no request for inference."""

Kind = TypeVar("Kind", bound=Message)

log = logging.getLogger(__name__)


class Service(grpc.GenericRpcHandler):  # type: ignore[misc]  # grpc has no types
    """All calls, on a door's parts."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._calls: Counter[str] = Counter()
        self._closing = asyncio.Event()
        # Not counted, without a token and without a look at the request: nothing that others send shuts them out.
        self._open: dict[str, Call] = {
            f"/{KSERVE}/ServerLive": self._live,
            f"/{KSERVE}/ServerReady": self._ready,
            f"/{HEALTH}/Check": self._health,
        }
        self._others: dict[str, Call] = {
            f"/{KSERVE}/ServerMetadata": self._server,
            f"/{KSERVE}/ModelReady": self._model_ready,
            f"/{KSERVE}/ModelMetadata": self._metadata,
            f"/{KSERVE}/ModelConfig": self._config,
            f"/{KSERVE}/RepositoryIndex": self._index,
            f"/{KSERVE}/ModelInfer": self._infer,
            f"/{KSERVE}/ModelStreamInfer": self._stream,
            f"/{HEALTH}/Watch": self._watch,
            **dict.fromkeys(CALLS, Reflection((KSERVE, HEALTH), parts.limits).answer),
        }

    def close(self) -> None:
        """End the calls that would last for ever."""
        self._closing.set()

    def service(self, details: Any) -> Any:
        """The handler of a call; None for an unknown one."""
        method = str(details.method)
        call = self._open.get(method) or self._others.get(method)
        if call is None:
            return None

        async def answer(_: Any, context: Any) -> None:
            await self._answer(call, context, counted=method in self._others)

        return grpc.stream_stream_rpc_method_handler(answer)

    async def _answer(self, call: Call, context: Any, *, counted: bool) -> None:
        caller = self._owner(context)
        self._calls[caller] += counted
        try:
            if counted:
                self._check(caller, context, token=call != self._watch)
            answer = await call(context)
            if answer is not None:
                await write(context, answer, self._parts.limits)
        except ConsisIDError as error:
            await self._abort(context, error)
        except grpc.aio.AbortError:
            raise
        except Exception as error:
            reference = secrets.token_hex(4)
            log.error("error %s", reference, exc_info=error)
            await self._abort(context, ConsisIDError(f"the door failed; the server's log has it as error {reference}"))
        finally:
            self._calls[caller] -= counted
            if not self._calls[caller]:
                del self._calls[caller]

    def _owner(self, context: Any) -> str:
        return owner(host(context, self._parts.access.proxies))

    def _check(self, caller: str, context: Any, *, token: bool) -> None:
        """Raises `Unauthenticated`, or `Busy` for more calls than there may be."""
        try:
            if token:
                self._parts.access.check(dict(context.invocation_metadata()).get("authorization"))
        except Unauthenticated as error:
            self._parts.records.count("grpc", error.code)
            raise
        most = self._parts.limits.connections
        if self._calls.total() > most or self._calls[caller] > self._parts.limits.one(most):
            raise Busy("there are too many calls; try again in 5 s", 5.0)

    async def _abort(self, context: Any, error: ConsisIDError) -> None:
        identifier = CURRENT.get()
        named = (("x-request-id", identifier),) if identifier else ()
        await context.abort(status(error), error.sent(), (*metadata(error), *named))

    async def _small(self, context: Any, kind: type[Kind]) -> Kind:
        async with self._parts.budget.reserve(self._owner(context), self._parts.limits.message):
            data = await read(context, self._parts.limits.body_seconds)
        if data is None:
            raise MalformedRequest("the call came without a message")
        if len(data) > _SMALL:
            raise RequestTooLarge(f"this call's message has at most {_SMALL} bytes, got {len(data)}")
        try:
            return kind.FromString(data)
        except DecodeError:
            raise MalformedRequest(f"this is no {kind.DESCRIPTOR.name}") from None

    async def _infer(self, context: Any) -> None:
        parts = self._parts
        peer = host(context, parts.access.proxies)
        with parts.records.request("grpc", peer, *named(context)) as line:
            caller = owner(peer)
            parts.dispatch.require_room(caller)
            async with parts.budget.reserve(caller, parts.limits.message) as held:
                data = await read(context, parts.limits.body_seconds)
                if data is None:
                    raise MalformedRequest("the call came without a message")
                line.received = len(data)
                asked = parse(data, parts.limits)
                del data
                if asked.streams:
                    raise MalformedRequest(f"{asked.model} answers several times; call it by ModelStreamInfer")
                held.resize(asked.size)
                seconds = context.time_remaining()
                answer = await parts.dispatch.run(asked, caller, seconds, line=line)
                line.sent = answer.ByteSize()
                held.resize(line.sent)
                context.set_trailing_metadata((("x-request-id", line.identifier),))
                await write(context, answer, parts.limits)

    async def _stream(self, context: Any) -> None:
        await Stream(self._parts, context).answer()

    async def _live(self, context: Any) -> Any:
        return service_pb2.ServerLiveResponse(live=True)

    async def _ready(self, context: Any) -> Any:
        return service_pb2.ServerReadyResponse(ready=await self._parts.supervisor.ready())

    async def _health(self, context: Any) -> Any:
        kinds = health_pb2.HealthCheckResponse
        ready = await self._parts.supervisor.ready()
        return kinds(status=kinds.SERVING if ready else kinds.NOT_SERVING)

    async def _watch(self, context: Any) -> None:
        """Health now, and whenever it changes, until `close`."""
        told = None
        closing = asyncio.ensure_future(self._closing.wait())
        try:
            while not closing.done():
                changed = asyncio.ensure_future(self._parts.supervisor.changed.wait())
                if (health := await self._health(context)) != told:
                    await write(context, health, self._parts.limits)
                    told = health
                await asyncio.wait({changed, closing}, return_when=asyncio.FIRST_COMPLETED)
                changed.cancel()
        finally:
            closing.cancel()

    async def _server(self, context: Any) -> Any:
        return ParseDict(description.server(), service_pb2.ServerMetadataResponse())

    async def _model_ready(self, context: Any) -> Any:
        asked = await self._small(context, service_pb2.ModelReadyRequest)
        description.signature_of(asked.name, asked.version)
        return service_pb2.ModelReadyResponse(ready=await self._parts.supervisor.ready())

    async def _metadata(self, context: Any) -> Any:
        asked = await self._small(context, service_pb2.ModelMetadataRequest)
        found = description.metadata(description.signature_of(asked.name, asked.version))
        return ParseDict(found, service_pb2.ModelMetadataResponse())

    async def _config(self, context: Any) -> Any:
        asked = await self._small(context, service_pb2.ModelConfigRequest)
        found = description.config(description.signature_of(asked.name, asked.version))
        return service_pb2.ModelConfigResponse(config=ParseDict(found, model_config_pb2.ModelConfig()))

    async def _index(self, context: Any) -> Any:
        models = description.index(ready=await self._parts.supervisor.ready())
        return ParseDict({"models": models}, service_pb2.RepositoryIndexResponse())
