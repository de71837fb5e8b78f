"""Triton server's gRPC, as the door calls it: one channel to each start of the server, errors by their codes."""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Callable
from typing import Any

import grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.errors import ConsisIDError, RequestCancelled, ServerDied, ServerError, from_wire
from consisid_runtime.events import Event
from consisid_runtime.serve.private import CHANNEL_OPTIONS, PrivatePort
from consisid_runtime.wire import of_backend

_READY = 5.0
"""Seconds that the server may take to say that it is ready."""
_UNBOUNDED = (("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1))
_DIED = (
    "Triton server ended while it worked on this request, perhaps because of it; it is started again, and the request "
    "may be sent again"
)

log = logging.getLogger(__name__)


class Upstream:
    """One start of Triton server. Belongs to the event loop in which it is made.

    Attributes:
        hurt: the process of a model stands still: every further request would fail.
    """

    def __init__(self, port: PrivatePort) -> None:
        self.port, self.hurt = port, False
        self._channel = grpc.aio.secure_channel(
            port.target, port.credentials(), (*CHANNEL_OPTIONS, *_UNBOUNDED, ("grpc.enable_retries", 0))
        )
        self._closed = False
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self._channel)

    async def ready(self, seconds: float = _READY) -> bool:
        """Whether every model is loaded, and the server says so in time."""
        if self._closed:
            return False
        try:
            return bool((await self._stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=seconds)).ready)
        except grpc.aio.AioRpcError:
            return False
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            task = asyncio.current_task()
            if self._closed and not (task and task.cancelling()):  # whoever asks waits for the next server
                return False
            raise

    async def stream(self, message: Any, on_event: Callable[[Event], None]) -> Any:
        """Send a ModelInferRequest; the ModelInferResponse with the video. Waits without a bound.

        Raises the typed error of the models, or `ServerDied`. What an unexpected error says stays in the log: it may
        name the server's memory. Read to its end in any case: a stream that is cancelled in the moment in which it
        ends can end Triton server 2.51 (SIGSEGV).
        """
        if self._closed:
            raise ServerDied(_DIED)
        call, found, failed = self._stub.ModelStreamInfer(), None, None
        try:
            await call.write(message)
            await call.done_writing()
            del message
            async for answer in call:
                try:
                    found = _take(answer, on_event) or found
                except ConsisIDError as error:
                    failed = failed or error
        except grpc.aio.AioRpcError as error:
            failed = _typed(error.details() or "", error.code())
            self.hurt |= isinstance(failed, ServerDied) and error.code() is not grpc.StatusCode.UNAVAILABLE
            raise failed from None
        except (asyncio.CancelledError, asyncio.InvalidStateError):
            if self._closed:
                raise ServerDied(_DIED) from None
            raise
        self.hurt |= isinstance(failed, ServerDied)
        if failed or found is None:
            raise failed or ServerError("the models ended the request without a video")
        return found

    async def close(self) -> None:
        """End the calls in flight with `ServerDied`."""
        self._closed = True
        await self._channel.close()


def contents(response: Any) -> dict[str, bytes]:
    """Output → its bytes, of BYTES those of its one element."""
    pairs = zip(response.outputs, response.raw_output_contents, strict=True)
    return {tensor.name: raw[4:] if tensor.datatype == "BYTES" else raw for tensor, raw in pairs}


def _take(answer: Any, on_event: Callable[[Event], None]) -> Any:
    """The response with the video; None for another one. Raises the typed error of the models."""
    if answer.error_message:
        raise _typed(answer.error_message, None)
    if not any(tensor.name == "event" for tensor in answer.infer_response.outputs):
        return answer.infer_response if answer.infer_response.outputs else None
    found = contents(answer.infer_response)
    on_event(Event.from_json(found["event"], found.get("preview"), found.get("checkpoint")))
    return None


def _typed(details: str, status: grpc.StatusCode | None) -> ConsisIDError:
    sent = from_wire(details)
    if type(sent) is not ServerError:  # it may quote the caller
        return sent
    if (known := of_backend(details)) is not None:
        return known
    if status is grpc.StatusCode.CANCELLED:
        return RequestCancelled("the server cancelled the request")
    if status is grpc.StatusCode.UNAVAILABLE:
        return ServerDied(_DIED)
    reference = secrets.token_hex(4)
    shown = status.name if status is not None else "in a stream"
    log.error("Triton server answered %s, error %s: %s", shown, reference, details[:2000])
    return ServerError(f"Triton server refused the request; the server's log has it as error {reference}")
