"""Resolves the settings: the command line before the environment before a file before the default."""

from __future__ import annotations

import difflib
import json
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic_settings import EnvSettingsSource

from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.small_file import read_small
from consisid_runtime.settings.kinds import File, accepts
from consisid_runtime.settings.settings import DOORS, PREFIX, Settings

CONFIG = "config"
"""The name of the file itself, which is no setting: `--config`, or a variable."""

# What Kubernetes tells containers of a service whose name is, or begins with, `consisid-serve`.
_OF_KUBERNETES = re.compile(
    r"(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=.*|PORT_\d+_\w+=.*|PORT=(tcp|udp|sctp)://.*)", re.DOTALL
)


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


@dataclass(frozen=True, slots=True)
class Resolved:
    """Settings, and where those came from that were given."""

    settings: Settings
    origins: Mapping[str, Origin]


def resolve(given: Mapping[str, Any], config: Path | None = None) -> Resolved:
    """The settings, of all sources.

    Args:
        given: on the command line, by name.
        config: a TOML file; None takes the one that a variable names, if any.

    Raises `FileInaccessible` for a file that cannot be read. `InvalidOption` for what is no TOML, for unknown names and
    impossible values, each with its name, where it came from, what came and what was wanted.
    """
    environment = _environment()
    named = environment.pop(CONFIG, None)
    path = config if config is not None else Path(named) if named is not None else None
    sources: list[tuple[dict[str, Any], dict[str, Origin]]] = [
        ({}, {}) if path is None else _file(path),
        (environment, {key: Origin(_variable(key)) for key in environment}),
        (dict(given), {key: Origin(f"--{key.replace('_', '-')}") for key in given}),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for found, whence in sources:
        values |= found
        origins |= whence
    resolved = Resolved(_settings(values, origins), origins)
    _require_sense(resolved)
    return resolved


def _settings(values: Mapping[str, Any], origins: Mapping[str, Origin]) -> Settings:
    try:
        return Settings(**values)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        raise _impossible(key, values[key], origins[key]) from None


def _variable(key: str) -> str:
    return PREFIX + key.upper()


def _environment() -> dict[str, Any]:
    """By name; a variable that is empty is not set."""
    known = {*Settings.model_fields, CONFIG}
    for name, value in sorted(os.environ.items()):
        if not name.upper().startswith(PREFIX):
            continue
        rest = name[len(PREFIX) :]
        unknown = rest.lower() not in known or name != name.upper()  # pydantic would read it in small letters, too
        if unknown and not _OF_KUBERNETES.fullmatch(f"{rest}={value}"):
            raise InvalidOption(f"the variable {name} is no setting{_nearest(rest.lower(), _variable)}")
    named = os.environ.get("CONSISID_SERVE_CONFIG")
    return EnvSettingsSource(Settings)() | ({CONFIG: named} if named else {})


def _file(path: Path) -> tuple[dict[str, Any], dict[str, Origin]]:
    """Of a TOML file. Paths in it are beside it."""
    origin = Origin(str(path), file=True)
    try:
        found = tomllib.loads(read_small(path).decode())
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8
        raise InvalidOption(f"{path} is no TOML: {error}") from None
    for key, value in found.items():
        if key not in Settings.model_fields:
            raise InvalidOption(f"{origin.of(_shown(key))} is no setting{_nearest(key, str)}")
        kind: Any = Settings.model_fields[key].annotation
        try:
            # As JSON, whose texts are paths, too, while a text is no number and 1 is not true.
            TypeAdapter(kind).validate_json(json.dumps(value, default=repr), strict=True)
        except ValidationError:
            raise _impossible(key, value, origin) from None
        if kind == File | None:
            found[key] = path.parent / value
    origins = dict.fromkeys(found, origin)
    _settings(found, origins)  # whatever wins over it
    return found, origins


def _impossible(key: str, value: Any, origin: Origin) -> InvalidOption:
    got = _shown(str(value) if isinstance(value, Path) else value)
    return InvalidOption(f"{key} must be {accepts(Settings.model_fields[key])}, got {got} ({origin.of(key)})")


def _shown(value: object) -> str:
    return repr(value)[:100]


def _nearest(key: str, write: Any) -> str:
    near = difflib.get_close_matches(key, Settings.model_fields, 1)
    return f"; the nearest one is {write(near[0])}" if near else "; docs/settings.md lists them"


def _require_sense(found: Resolved) -> None:
    """Raises `InvalidOption` for values that contradict each other."""
    settings, limits = found.settings, found.settings.limits()

    def whence(*keys: str) -> str:
        origins = (f"{key}: {found.origins[key].of(key)}" for key in keys if key in found.origins)
        return f" ({', '.join(origins)})"

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
    of_door = [key for key in found.origins if key in DOORS and getattr(settings, key) != getattr(own, key)]
    if settings.direct and of_door:
        raise InvalidOption(
            f"{of_door[0]} is the door's{whence(of_door[0], 'direct')}; Triton server's own ports have no TLS, no "
            "token, no limits, no signature and no consent: leave it out, or leave out --direct"
        )
    if settings.metrics_port is not None and not settings.direct:
        raise InvalidOption(
            f"metrics_port belongs to --direct{whence('metrics_port')}; the door's metrics are on the HTTP port, at "
            "/metrics"
        )
