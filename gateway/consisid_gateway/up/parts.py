"""The three commands of `consisid up`, with what each is told and what is kept from it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from consisid_gateway.settings.settings import GatewaySettings, WorkerSettings
from consisid_gateway.settings.storage import data_folder
from consisid_gateway.up import folder
from consisid_gateway.up.child import Part
from consisid_runtime.errors import InvalidOption
from consisid_runtime.serve.address import free_ports, require_free
from consisid_runtime.serve.address import resolve as address_of
from consisid_runtime.settings.base import CommandSettings
from consisid_runtime.settings.resolve import Resolved, resolve
from consisid_runtime.settings.settings import Settings as ServeSettings
from consisid_runtime.wire import TOKEN_VARIABLE

DOOR, WORKER, GATEWAY = "door", "worker", "gateway"

_OF_UP: dict[type[CommandSettings], tuple[str, ...]] = {
    ServeSettings: (
        *("host", "grpc_port", "http_port", "direct", "metrics_port"),
        *("tls_cert", "tls_key", "token_file", "trusted_proxy"),
    ),
    GatewaySettings: ("database", "objects"),
    WorkerSettings: ("data", "database", "objects", "server", "token_file", "ca"),
}
"""Settings that `consisid up` chooses itself."""

_ENDING = 10.0
"""Seconds that a part has to end, beside those for what runs in it."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The settings of all parts, checked."""

    serve: ServeSettings
    gateway: GatewaySettings
    worker: WorkerSettings

    @classmethod
    def read(cls, serve: Mapping[str, Any], gateway: Mapping[str, Any]) -> Chosen:
        """From what was given on the command line, from variables and from the files that they name.

        Raises what `resolve` does, and `InvalidOption` for a setting that `consisid up` chooses itself.
        """
        found = resolve(ServeSettings, serve), resolve(GatewaySettings, gateway), resolve(WorkerSettings, {})
        for each in found:
            _require_free(each)
        if found[0].settings.bundle is None:
            raise InvalidOption("there is no bundle to serve; name its folder: --bundle, or CONSISID_SERVE_BUNDLE")
        return cls(found[0].settings, found[1].settings, found[2].settings)


def parts(chosen: Chosen) -> list[Part]:
    """The parts, in the order in which they end.

    Raises what writing into the folder of the data does, and `InvalidOption` for a gateway's port that is in use.
    """
    require_free(address_of(chosen.gateway.host), chosen.gateway.port, "the gateway")
    data = data_folder(chosen.gateway.data)
    certificate, key = folder.door_certificate(data)
    loopback = address_of("127.0.0.1")
    grpc, http, free = free_ports(loopback, (0, 0, 0))
    port = chosen.gateway.port or free  # a gateway that is started again has the same
    token = secrets.token_urlsafe(32)
    signed = () if chosen.worker.webhook_secret_file else ("--webhook-secret-file", str(folder.webhook_secret(data)))
    return [
        Part(
            GATEWAY,
            ("gateway", "--data", str(data), "--host", chosen.gateway.host, "--port", str(port)),
            _environment(GatewaySettings),
            chosen.gateway.grace_seconds + _ENDING,
        ),
        Part(
            WORKER,
            ("worker", "--data", str(data), "--server", f"grpcs://127.0.0.1:{grpc}", "--ca", str(certificate), *signed),
            {**_environment(WorkerSettings), TOKEN_VARIABLE: token},
            _ENDING,
        ),
        Part(
            DOOR,
            (
                *("serve", "--bundle", os.path.abspath(str(chosen.serve.bundle)), "--host", str(loopback)),
                *("--grpc-port", str(grpc), "--http-port", str(http)),
                *("--tls-cert", str(certificate), "--tls-key", str(key)),
            ),
            {**_environment(ServeSettings), TOKEN_VARIABLE: token},
            chosen.serve.grace_seconds + 2 * _ENDING,
        ),
    ]


def _environment(own: type[CommandSettings]) -> dict[str, str]:
    """Without the settings of the others, among which are paths of their secrets, and without the door's token."""
    hidden = tuple(kind.variable("") for kind in _OF_UP if kind is not own)
    return {name: value for name, value in os.environ.items() if not name.startswith((*hidden, TOKEN_VARIABLE))}


def _require_free(found: Resolved[Any]) -> None:
    for name in _OF_UP[type(found.settings)]:
        if (origin := found.origins.get(name)) is not None:
            raise InvalidOption(
                f"{name} is chosen by `consisid up` ({name}: {origin.of(name)}); leave it out, or start `consisid "
                "serve`, `consisid worker` and `consisid gateway` yourself"
            )
