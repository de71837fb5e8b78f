"""All settings of `consisid serve` as one model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from pydantic_settings import SettingsConfigDict

from consisid_runtime.door.limits import Limits
from consisid_runtime.errors import InvalidOption
from consisid_runtime.settings.base import CommandSettings, Origin
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
from consisid_runtime.wire import MEMORY_VARIABLE, TOKEN_VARIABLE, WATERMARK_VARIABLE


class Settings(Served, Models, Callers, Requests, Sizes, Connections, Upkeep, CommandSettings):
    """See `CommandSettings`."""

    groups: ClassVar = GROUPS
    # One of them is secret: none of their values is printed.
    instead: ClassVar = {
        "token_file": TOKEN_VARIABLE,
        "watermark_hook": WATERMARK_VARIABLE,
        "memory": MEMORY_VARIABLE,
    }

    model_config = SettingsConfigDict(env_prefix="CONSISID_SERVE_")

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

    def require_sense(self, origins: Mapping[str, Origin]) -> None:
        limits = self.limits()

        def whence(*keys: str) -> str:
            found = (f"{key}: {origins[key].of(key)}" for key in keys if key in origins)
            return f" ({', '.join(found)})"

        largest = max(limits.message, limits.body, limits.generate, limits.json)
        if limits.in_flight < largest:
            raise InvalidOption(
                f"in_flight_bytes must be at least {largest}, what one request may take by the other sizes, got "
                f"{limits.in_flight}{whence('in_flight_bytes', 'image_bytes', 'generate_bytes', 'json_bytes')}"
            )
        if limits.restart_longest_seconds < limits.restart_seconds:
            raise InvalidOption(
                f"restart_longest_seconds must be at least restart_seconds, {limits.restart_seconds:g}, got "
                f"{limits.restart_longest_seconds:g}{whence('restart_longest_seconds', 'restart_seconds')}"
            )
        own = Settings()
        of_door = [key for key in origins if key in DOORS and getattr(self, key) != getattr(own, key)]
        if self.direct and of_door:
            raise InvalidOption(
                f"{of_door[0]} is the door's{whence(of_door[0], 'direct')}; Triton server's own ports have no TLS, no "
                "token, no limits, no signature and no consent: leave it out, or leave out --direct"
            )
        if self.metrics_port is not None and not self.direct:
            raise InvalidOption(
                f"metrics_port belongs to --direct{whence('metrics_port')}; the door's metrics are on the HTTP port, "
                "at /metrics"
            )


DOORS = frozenset(name for group in GROUPS if group.of_door for name in group.model_fields)
"""Names of settings that only a door reads."""
