"""The ports of a Triton server that anybody may call: gRPC, HTTP and metrics, its administrative APIs restricted."""

from __future__ import annotations

import http.client
import secrets
from dataclasses import dataclass
from typing import TYPE_CHECKING

from consisid_runtime.serve.address import Address, for_http, in_url, reachable

if TYPE_CHECKING:
    from grpc import Channel

# APIs that can run code, map memory or write files in the server. Inference, health, metadata, configuration and
# statistics stay open.
_CLOSED = "shared-memory,model-repository,trace,logging"


@dataclass(frozen=True, slots=True)
class OpenPorts:
    """Where one server listens."""

    address: Address
    grpc: int
    http: int
    metrics: int

    def flags(self) -> list[str]:
        """Triton server's. The key of the restricted APIs is given to nobody."""
        closed = f"{_CLOSED}:consisid-secret={secrets.token_urlsafe(32)}"
        return [
            f"--grpc-address={in_url(self.address)}",
            f"--grpc-port={self.grpc}",
            f"--grpc-restricted-protocol={closed}",
            f"--http-address={for_http(self.address)}",
            f"--http-port={self.http}",
            f"--http-restricted-api={closed}",
            f"--metrics-address={for_http(self.address)}",
            f"--metrics-port={self.metrics}",
        ]

    def environment(self) -> dict[str, str]:
        """What the models need to know of it."""
        return {}

    def channel(self) -> Channel:
        """To the server's gRPC; close it."""
        import grpc

        target = f"{in_url(reachable(self.address))}:{self.grpc}"
        return grpc.insecure_channel(target, (("grpc.enable_http_proxy", 0),))

    def ready(self) -> bool:
        """Whether every model is loaded."""
        connection = http.client.HTTPConnection(f"{in_url(reachable(self.address))}:{self.http}", timeout=5)
        try:
            connection.request("GET", "/v2/health/ready")
            return connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()
