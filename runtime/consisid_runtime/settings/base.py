"""What the settings of every command have in common."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from pydantic import BaseModel
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value came from.

    Attributes:
        text: "--queue", "CONSISID_SERVE_QUEUE", "serve.toml".
    """

    text: str
    file: bool = False

    def of(self, key: str) -> str:
        """Behind a message."""
        return f"key {key} of {self.text}" if self.file else self.text


class Group(BaseModel):
    """Settings that belong together. The docstring of one is its heading."""


class CommandSettings(BaseSettings):
    """Immutable. Made of given values alone; `resolve` reads the sources.

    A subclass has groups among its bases, and the prefix of its variables in its `model_config`.

    Attributes:
        groups: in the order in which they are printed.
        instead: setting → variable that is read where it is not set.
    """

    groups: ClassVar[tuple[type[Group], ...]]
    instead: ClassVar[Mapping[str, str]] = {}

    model_config = SettingsConfigDict(env_ignore_empty=True, extra="forbid", frozen=True, allow_inf_nan=False)

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

    @classmethod
    def variable(cls, key: str) -> str:
        """The environment variable of a setting."""
        return f"{cls.model_config['env_prefix']}{key.upper()}"

    def require_sense(self, origins: Mapping[str, Origin]) -> None:
        """Raises `InvalidOption` for values that contradict each other.

        Args:
            origins: of what was given.
        """
