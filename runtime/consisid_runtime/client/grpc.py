"""The gRPC transport: one channel a call, which needs no state between calls and no recovery after an outage."""

from __future__ import annotations

import os
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import grpc
import tritonclient.grpc as triton
from tritonclient.grpc import service_pb2, service_pb2_grpc

from consisid_runtime.client.calls import Calls
from consisid_runtime.client.message import infer_request
from consisid_runtime.client.proxy import Proxy, authority
from consisid_runtime.client.transport import PATIENCE, Parameters
from consisid_runtime.errors import (
    Busy,
    ConsisIDError,
    ForkedProcess,
    ServerError,
    ServerTimeout,
    ServerUnreachable,
    from_wire,
)

if TYPE_CHECKING:
    from numpy.typing import NDArray

_OPTIONS = (
    ("grpc.max_send_message_length", 2**31 - 1),
    ("grpc.max_receive_message_length", 2**31 - 1),
    # Milliseconds: between attempts to connect, and for one attempt.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 1000),
    ("grpc.min_reconnect_backoff_ms", 5000),
    # Channels would otherwise share connections, and wait after each other's failed attempts.
    ("grpc.use_local_subchannel_pool", 1),
)
_REASON_TIMEOUT = 0.1
"""Seconds: a channel that failed to connect says why at once."""

_process: int | None = None
"""The process that used gRPC first. In one forked later calls hang at times, of new channels too (grpcio 1.85)."""


class GrpcTransport:
    """A `Transport` over gRPC. tritonclient and Triton server both raise gRPC's 4 MiB limit to 2 GiB."""

    def __init__(self, host: str, port: int, *, proxy: Proxy | None, ready_timeout: float) -> None:
        # Without the scheme a host named unix, ipv4 or dns would be taken for one.
        self._target = f"dns:///{authority(host, port)}"
        self._options = (*_OPTIONS, ("grpc.http_proxy", proxy.url) if proxy else ("grpc.enable_http_proxy", 0))
        self._shown = f"grpc://{authority(host, port)}" + (f" through the proxy {proxy}" if proxy else "")
        self._ready_timeout = ready_timeout
        self._calls = Calls()

    def infer(
        self,
        model: str,
        inputs: Mapping[str, bytes | str],
        parameters: Parameters,
        outputs: Sequence[str],
        timeout: float,
    ) -> dict[str, NDArray[Any]]:
        deadline = time.monotonic() + timeout
        request = infer_request(model, inputs, parameters, outputs)
        with self._stub() as stub:
            self._await_connection(stub, deadline)
            try:
                response = stub.ModelInfer(request, timeout=_left(deadline))
            except grpc.RpcError as error:
                raise self._typed(error, timeout) from error
        return self._arrays(response, outputs)

    def ready(self) -> bool:
        with self._stub() as stub:
            try:
                return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=self._ready_timeout).ready)
            except grpc.RpcError:
                return False

    def close(self) -> None:
        self._calls.close()

    @contextmanager
    def _stub(self) -> Iterator[service_pb2_grpc.GRPCInferenceServiceStub]:
        global _process
        if _process not in (None, os.getpid()):
            raise ForkedProcess(
                f"gRPC was used in process {_process}, from which process {os.getpid()} was forked: calls would hang"
            )
        _process = os.getpid()
        channel = grpc.insecure_channel(self._target, options=self._options)
        try:
            with self._calls.running(channel.close):
                yield service_pb2_grpc.GRPCInferenceServiceStub(channel)
        finally:
            channel.close()

    def _await_connection(self, stub: service_pb2_grpc.GRPCInferenceServiceStub, deadline: float) -> None:
        """Wait until the channel is connected, at most `PATIENCE`. What fails otherwise is left to the call itself."""
        with suppress(grpc.RpcError):
            stub.ServerLive(
                service_pb2.ServerLiveRequest(), timeout=min(PATIENCE, _left(deadline)), wait_for_ready=True
            )

    def _typed(self, error: grpc.RpcError, timeout: float) -> ConsisIDError:
        status, details = error.code(), error.details() or ""
        if status is grpc.StatusCode.DEADLINE_EXCEEDED:
            return ServerTimeout(f"{self._shown} did not answer within {timeout:g} s")
        sent = from_wire(details)
        if isinstance(sent, Busy):
            sent.retry_after = _pushed_back(error)
        if type(sent) is not ServerError:
            return sent
        # A full queue has this status too, but then the server has answered.
        if status is grpc.StatusCode.UNAVAILABLE and "queue size" not in details:
            return ServerUnreachable(f"{self._shown}: {details}; is the server running?")
        return ServerError(f"{self._shown} answered {status.name}: {details}")

    def _arrays(self, response: service_pb2.ModelInferResponse, outputs: Sequence[str]) -> dict[str, NDArray[Any]]:
        result = triton.InferResult(response)
        try:
            arrays = {name: result.as_numpy(name) for name in outputs}
        except (ValueError, TypeError, struct.error) as error:
            raise ServerError(f"{self._shown} did not answer as Triton server does: {error}") from error
        return {name: array for name, array in arrays.items() if array is not None}


def _left(deadline: float) -> float:
    return max(deadline - time.monotonic(), _REASON_TIMEOUT)


def _pushed_back(error: grpc.RpcError) -> float | None:
    """Seconds until a refused request may be sent again, by gRPC's own header for it."""
    values = [value for name, value in error.trailing_metadata() or () if name == "grpc-retry-pushback-ms"]
    return int(values[0]) / 1000 if values and str(values[0]).isdecimal() else None
