"""Triton server's gRPC, as the door calls it: one channel to each start of the server, errors by their codes."""

from __future__ import annotations

import asyncio
import logging
import secrets
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.errors import ConsisIDError, RequestCancelled, ServerDied, ServerError, from_wire
from consisid_runtime.serve.private import CHANNEL_OPTIONS, PrivatePort

_READY = 5.0
"""Seconds that the server may take to say that it is ready."""
_UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_DIED = (
    "Triton server ended while it worked on this request, perhaps because of it; it is started again, and the request "
    "may be sent again"
)

log = logging.getLogger(__name__)


class Upstream:
    """One start of Triton server. Belongs to the event loop in which it is made."""

    def __init__(self, port: PrivatePort) -> None:
        self.port = port
        self._channel = grpc.aio.secure_channel(
            port.target, port.credentials(), (*CHANNEL_OPTIONS, *_UNBOUNDED, ("grpc.enable_retries", 0))
        )
        self._closed = False
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def ready(self) -> bool:
        """Whether every model is loaded."""
        try:
            return bool((await self._stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=_READY)).ready)
        except grpc.aio.AioRpcError:
            return False

    async def infer(self, message: Any) -> Any:
        """The ModelInferResponse to a ModelInferRequest; waits without a bound.

        Raises the typed error of the models, or `ServerDied`. What an unexpected error says stays in the log: it may
        name the server's memory.
        """
        try:
            return await self._stub.ModelInfer(message)
        except grpc.aio.AioRpcError as error:
            raise _typed(error) from None
        except asyncio.CancelledError:
            if self._closed:
                raise ServerDied(_DIED) from None
            raise

    async def close(self) -> None:
        """End the calls in flight with `ServerDied`."""
        self._closed = True
        await self._channel.close()


def _typed(error: grpc.aio.AioRpcError) -> ConsisIDError:
    details = error.details() or ""
    sent = from_wire(details)
    if type(sent) is not ServerError:
        return sent
    if error.code() is grpc.StatusCode.CANCELLED:
        return RequestCancelled("the server cancelled the request")
    if error.code() is grpc.StatusCode.UNAVAILABLE:
        return ServerDied(_DIED)
    reference = secrets.token_hex(4)
    log.error("Triton server answered %s, error %s: %s", error.code().name, reference, details[:2000])
    return ServerError(f"Triton server refused the request; the server's log has it as error {reference}")
