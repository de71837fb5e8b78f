"""Errors over gRPC: the status of their class, and when to try again."""

from __future__ import annotations

import grpc
from google.protobuf import any_pb2, duration_pb2
from google.rpc import error_details_pb2, status_pb2

from consisid_runtime.errors import Busy, ConsisIDError

Metadata = tuple[tuple[str, str | bytes], ...]


def status(error: ConsisIDError) -> grpc.StatusCode:
    """The class's own."""
    return grpc.StatusCode[error.grpc]


def metadata(error: ConsisIDError) -> Metadata:
    """Of a busy server: google.rpc.RetryInfo, and the header by which gRPC's own retries wait."""
    if not isinstance(error, Busy) or error.retry_after is None:
        return ()
    delay = duration_pb2.Duration()
    delay.FromMilliseconds(int(error.retry_after * 1000))
    info = any_pb2.Any()
    info.Pack(error_details_pb2.RetryInfo(retry_delay=delay))
    details = status_pb2.Status(code=status(error).value[0], message=error.sent(), details=[info])
    return (
        ("grpc-retry-pushback-ms", str(int(error.retry_after * 1000))),
        ("grpc-status-details-bin", details.SerializeToString()),
    )
