"""The gRPC transport: one channel a call, which needs no state between calls and no recovery after an outage."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import grpc
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.client.access import Access
from consisid_runtime.client.answer import sent_error
from consisid_runtime.client.message import infer_request
from consisid_runtime.client.proxy import Proxy, authority
from consisid_runtime.client.transport import ATTEMPT, MAX_ANSWER, PATIENCE, Parameters, patiently
from consisid_runtime.errors import (
    CertificateRefused,
    ConsisIDError,
    ForkedProcess,
    ServerError,
    ServerTimeout,
    ServerUnreachable,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPTIONS = (
    ("grpc.max_send_message_length", MAX_ANSWER),
    ("grpc.max_receive_message_length", MAX_ANSWER),
    # Milliseconds: between attempts to connect, and for one attempt.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", int(ATTEMPT * 1000)),
    # Channels would otherwise share connections, and wait after each other's failed attempts.
    ("grpc.use_local_subchannel_pool", 1),
)
_UNTRUSTED = ("CERTIFICATE_VERIFY_FAILED", "Hostname Verification Check failed", "is not in peer certificate")
"""What gRPC says of a certificate that it refuses; it has no status for that."""

_process: int | None = None
"""The process that used gRPC first. In one forked later calls hang at times, of new channels too (grpcio 1.85)."""


class GrpcTransport:
    """A `Transport` over gRPC. tritonclient and Triton server both raise gRPC's 4 MiB limit to 2 GiB."""

    def __init__(self, host: str, port: int, *, tls: bool, access: Access, proxy: Proxy | None) -> None:
        # Without the scheme a host named unix, ipv4 or dns would be taken for one.
        self._target = f"dns:///{authority(host, port)}"
        self._options = (*_OPTIONS, ("grpc.http_proxy", proxy.url) if proxy else ("grpc.enable_http_proxy", 0))
        self._shown = f"grpc{'s' if tls else ''}://{authority(host, port)}"
        self._shown += f" through the proxy {proxy}" if proxy else ""
        self._tls, self._access = tls, access
        self._metadata = tuple(access.headers.items())

    async def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> dict[str, NDArray[Any]]:
        deadline = time.monotonic() + timeout
        request = infer_request(model, inputs, parameters, outputs)
        async with self._stub() as stub:
            await self._connect(stub, deadline, timeout, patience)
            try:
                response = await stub.ModelInfer(request, timeout=_left(deadline), metadata=self._metadata)
            except grpc.RpcError as error:
                raise self._typed(error, timeout) from error
        return self._arrays(response, outputs)

    async def stream(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
        patience: float = PATIENCE,
    ) -> AsyncGenerator[dict[str, NDArray[Any]], None]:
        deadline = time.monotonic() + timeout
        request = infer_request(model, inputs, parameters, outputs)
        async with self._stub() as stub:
            await self._connect(stub, deadline, timeout, patience)
            call = stub.ModelStreamInfer(timeout=_left(deadline), metadata=self._metadata)
            try:
                await call.write(request)
                await call.done_writing()
                async for answer in call:
                    if answer.error_message:
                        raise self._sent(answer)
                    if answer.infer_response.outputs:
                        names = [output.name for output in answer.infer_response.outputs]
                        yield self._arrays(answer.infer_response, names)
            except grpc.RpcError as error:
                raise self._typed(error, timeout) from error

    async def ready(self, timeout: float) -> bool:
        async with self._stub() as stub:
            try:
                request = service_pb2.ServerReadyRequest()
                return bool((await stub.ServerReady(request, timeout=timeout, metadata=self._metadata)).ready)
            except grpc.RpcError:
                return False

    @asynccontextmanager
    async def _stub(self) -> AsyncIterator[service_pb2_grpc.GRPCInferenceServiceStub]:
        global _process
        if _process not in (None, os.getpid()):
            raise ForkedProcess(
                f"gRPC was used in process {_process}, from which process {os.getpid()} was forked: calls would hang"
            )
        _process = os.getpid()
        if self._tls:
            credentials = grpc.ssl_channel_credentials(self._access.grpc_roots())
            channel = grpc.aio.secure_channel(self._target, credentials, options=self._options)
        else:
            channel = grpc.aio.insecure_channel(self._target, options=self._options)
        async with channel:
            yield service_pb2_grpc.GRPCInferenceServiceStub(channel)

    async def _connect(
        self, stub: service_pb2_grpc.GRPCInferenceServiceStub, deadline: float, timeout: float, patience: float
    ) -> None:
        """Raises `ServerUnreachable`, `CertificateRefused` or `ServerTimeout`; then nothing was sent."""

        async def attempt() -> None:
            try:
                await stub.ServerLive(service_pb2.ServerLiveRequest(), timeout=_left(deadline))
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.DEADLINE_EXCEEDED:
                    raise self._late(timeout) from error
                if error.code() is grpc.StatusCode.UNAVAILABLE:
                    raise self._unreachable(error.details() or "", begun=False) from error

        await patiently(attempt, min(patience, _left(deadline)))

    def _late(self, timeout: float) -> ServerTimeout:
        return ServerTimeout(f"{self._shown} did not answer within {timeout:g} s")

    def _unreachable(self, details: str, *, begun: bool) -> ServerUnreachable:
        if self._tls and any(words in details for words in _UNTRUSTED):
            return CertificateRefused(f"{self._shown}: {details}")
        return ServerUnreachable(f"{self._shown}: {details}; is the server running?", begun=begun)

    def _typed(self, error: grpc.RpcError, timeout: float) -> ConsisIDError:
        status, details = error.code(), error.details() or ""
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return self._late(timeout)
        sent = sent_error(details, _pushed_back(error))
        if type(sent) is not ServerError:
            return sent
        # A full queue has this status too, but then the server has answered.
        if status is grpc.StatusCode.UNAVAILABLE and "queue size" not in details:
            return self._unreachable(details, begun=True)
        return ServerError(f"{self._shown} answered {status.name}: {details}")

    def _sent(self, answer: service_pb2.ModelStreamInferResponse) -> ConsisIDError:
        parameters = answer.infer_response.parameters
        given = parameters.get("retry_after")
        seconds = None if given is None else given.double_param or float(given.int64_param)
        sent = sent_error(answer.error_message, seconds)
        return ServerError(f"{self._shown} answered: {answer.error_message}") if type(sent) is ServerError else sent

    def _arrays(self, response: service_pb2.ModelInferResponse, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        result = triton.InferResult(response)
        try:
            arrays = {name: result.as_numpy(name) for name in outputs}
        except (ValueError, TypeError, struct.error) as error:
            raise ServerError(f"{self._shown} did not answer as Triton server does: {error}") from error
        return {name: array for name, array in arrays.items() if array is not None}


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), 0.0)


def _pushed_back(error: grpc.RpcError) -> float | None:
    """Seconds until a refused request may be sent again, by gRPC's own header for it."""
    values = [value for name, value in error.trailing_metadata() or () if name == "grpc-retry-pushback-ms"]
    return int(values[0]) / 1000 if values and str(values[0]).isdecimal() else None
