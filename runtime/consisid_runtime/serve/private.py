"""What makes a Triton server reachable for one process alone: gRPC under mutual TLS, with certificates made for it.

A port on loopback is open to every user of the machine, whether its number is told or not. Needs cryptography.
"""

from __future__ import annotations

import datetime
import os
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING

from consisid_runtime.serve.ticket import make_spare
from consisid_runtime.wire import TICKETS_VARIABLE

if TYPE_CHECKING:
    import grpc

_NAME = "consisid"
CHANNEL_OPTIONS = (("grpc.ssl_target_name_override", _NAME), ("grpc.enable_http_proxy", 0))
"""The certificate is for a name, not for an address."""

_TICKETS = "tickets"
_YEARS = 30
"""A server keeps its certificates for as long as it runs; nobody else is asked to trust them."""
_LONGEST_SOCKET = 100
"""Bytes of a Unix socket's path; Linux has 107."""


@dataclass(frozen=True, slots=True)
class PrivatePort:
    """One server's; `make` writes what it needs.

    Attributes:
        target: address and port of gRPC.
        tickets: the folder of `serve.ticket`. Only this user can enter the one around it, with the server's key.
        metrics: the Unix socket of the server's metrics; None where its path would be too long.
    """

    target: str
    tickets: Path
    metrics: Path | None
    _server: bytes
    _key: bytes
    _certificate: bytes

    @classmethod
    def make(cls, folder: Path, port: int) -> PrivatePort:
        """Fresh keys and certificates for server and client, in a new folder below `folder`. Raises `OSError`."""
        private = folder / "private"
        private.mkdir(mode=0o700)
        (private / _TICKETS).mkdir(mode=0o700)
        make_spare(private / _TICKETS)
        (server_key, server), (key, certificate) = make_certificate(_NAME), make_certificate(_NAME)
        for name, content in (("server.key", server_key), ("server.pem", server), ("client.pem", certificate)):
            with open(private / name, "xb", opener=lambda path, flags: os.open(path, flags, 0o600)) as file:
                file.write(content)
        metrics = private / "metrics"
        found = metrics if len(os.fsencode(metrics)) < _LONGEST_SOCKET else None
        return cls(f"127.0.0.1:{port}", private / _TICKETS, found, server, key, certificate)

    def flags(self) -> list[str]:
        """Triton server's: gRPC for who has the client's key, no HTTP, metrics on the socket."""
        folder = self.tickets.parent
        address, _, port = self.target.partition(":")
        return [
            f"--grpc-address={address}",
            f"--grpc-port={port}",
            "--grpc-use-ssl=true",
            "--grpc-use-ssl-mutual=true",
            f"--grpc-server-cert={folder / 'server.pem'}",
            f"--grpc-server-key={folder / 'server.key'}",
            f"--grpc-root-cert={folder / 'client.pem'}",
            "--allow-http=false",
            f"--metrics-address=unix:{self.metrics}" if self.metrics else "--allow-metrics=false",
        ]

    def environment(self) -> dict[str, str]:
        """What the models need to know of it."""
        return {TICKETS_VARIABLE: str(self.tickets)}

    def credentials(self) -> grpc.ChannelCredentials:
        """The client's, for a channel to `target`, which also needs `CHANNEL_OPTIONS`."""
        import grpc

        return grpc.ssl_channel_credentials(self._server, self._key, self._certificate)

    def channel(self) -> grpc.Channel:
        """To the server's gRPC; close it."""
        import grpc

        return grpc.secure_channel(self.target, self.credentials(), CHANNEL_OPTIONS)

    def ready(self) -> bool:
        """Whether every model is loaded."""
        import grpc
        from tritonclient.grpc import service_pb2, service_pb2_grpc

        with self.channel() as channel:
            try:
                stub = service_pb2_grpc.GRPCInferenceServiceStub(channel)
                return bool(stub.ServerReady(service_pb2.ServerReadyRequest(), timeout=5).ready)
            except grpc.RpcError:
                return False


def make_certificate(host: str) -> tuple[bytes, bytes]:
    """A new private key and its certificate for a host's name or address, as PEM. It is its own authority."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    try:
        called: x509.GeneralName = x509.IPAddress(ip_address(host))
    except ValueError:
        called = x509.DNSName(host)
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))  # a clock that is set back
        .not_valid_after(now + datetime.timedelta(days=365 * _YEARS))
        .add_extension(x509.SubjectAlternativeName([called]), critical=False)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM
    private = key.private_bytes(form, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private, certificate.public_bytes(form)
