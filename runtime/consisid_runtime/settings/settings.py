"""All settings as one model."""

from __future__ import annotations

from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict

from consisid_runtime.door.limits import Limits
from consisid_runtime.settings.groups import (
    GROUPS,
    Callers,
    Connections,
    Models,
    Requests,
    Served,
    Sizes,
    Upkeep,
)

PREFIX = "CONSISID_SERVE_"
"""Before a setting's name in capitals: its environment variable."""


class Settings(Served, Models, Callers, Requests, Sizes, Connections, Upkeep, BaseSettings):
    """Immutable. Made of given values alone; `resolve` reads the sources."""

    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_ignore_empty=True, extra="forbid", frozen=True, allow_inf_nan=False
    )

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        return (init_settings,)

    def limits(self) -> Limits:
        """The door's, by these settings."""
        return Limits(
            image=self.image_bytes,
            json=self.json_bytes,
            generate=self.generate_bytes,
            header=self.binary_json_bytes,
            brackets=self.json_brackets,
            plain=self.grpc_plain_bytes,
            in_flight=self.in_flight_bytes,
            head=self.head_bytes,
            fields=self.head_fields,
            head_seconds=self.head_seconds,
            handshake_seconds=self.handshake_seconds,
            body_seconds=self.body_seconds,
            idle_seconds=self.idle_seconds,
            next_seconds=self.next_seconds,
            silence=self.silence_seconds,
            connections=self.connections,
            queue=self.queue,
            urgent_row=self.urgent_row,
            deadline=self.deadline_seconds,
            share=self.client_share,
            grace=self.grace_seconds,
            patience=self.patience_seconds,
            stubborn=self.stubborn_seconds,
            restart_seconds=self.restart_seconds,
            restart_longest_seconds=self.restart_longest_seconds,
            restart_settled_seconds=self.restart_settled_seconds,
            restart_attempts=self.restart_attempts,
            consents=self.consent_calls,
            steps=self.max_steps,
            frames=self.max_frames,
            pixels=self.max_pixels,
        )


DOORS = frozenset(name for group in GROUPS if group.of_door for name in group.model_fields)
"""Names of settings that only a door reads."""
