"""The settings of each command as one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic_settings import SettingsConfigDict

from consisid_gateway.settings.groups import (
    Accepting,
    GatewayUpkeep,
    Listening,
    Making,
    Serving,
    Signing,
    Storage,
    Webhooks,
    WorkerUpkeep,
)
from consisid_runtime.errors import InvalidOption
from consisid_runtime.settings.base import CommandSettings, Origin
from consisid_runtime.wire import TOKEN_VARIABLE


class Stored(Storage, CommandSettings):
    """Of a command that reads what is stored."""

    def require_sense(self, origins: Mapping[str, Origin]) -> None:
        if self.objects is None and self.database is not None and not self.database.startswith("sqlite"):
            raise InvalidOption(
                "with PostgreSQL there may be several machines: name objects that all of them reach, a shared folder "
                f"or s3://BUCKET/PREFIX (database: {origins['database'].of('database')})"
            )


class GatewaySettings(Listening, Accepting, Webhooks, GatewayUpkeep, Stored):
    """Of `consisid gateway`."""

    groups: ClassVar = (Storage, Listening, Accepting, Webhooks, GatewayUpkeep)

    model_config = SettingsConfigDict(env_prefix="CONSISID_GATEWAY_")

    def require_sense(self, origins: Mapping[str, Origin]) -> None:
        super().require_sense(origins)
        if (self.tls_cert is None) != (self.tls_key is None):
            raise InvalidOption("TLS needs both a certificate and its key: tls_cert and tls_key")


class KeysSettings(GatewaySettings):
    """Of `consisid keys`: the gateway's own, of which it reads the database alone."""

    def require_sense(self, origins: Mapping[str, Origin]) -> None:
        return


class WorkerSettings(Serving, Making, Signing, WorkerUpkeep, Stored):
    """Of `consisid worker`."""

    groups: ClassVar = (Storage, Serving, Making, Signing, WorkerUpkeep)
    instead: ClassVar = {"token_file": TOKEN_VARIABLE}

    model_config = SettingsConfigDict(env_prefix="CONSISID_WORKER_")
