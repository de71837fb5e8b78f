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
from typing import Any, Generic, TypeVar

from pydantic import TypeAdapter, ValidationError
from pydantic_settings import EnvSettingsSource

from consisid_runtime.errors import InvalidOption
from consisid_runtime.files.small_file import read_small
from consisid_runtime.settings.base import CommandSettings, Origin
from consisid_runtime.settings.kinds import File, accepts, is_shown

Chosen = TypeVar("Chosen", bound=CommandSettings)

CONFIG = "config"
"""The name of the file itself, which is no setting: `--config`, or a variable."""

# What Kubernetes tells containers of a service whose name is, or begins with, that of the command: `consisid-serve`.
_OF_KUBERNETES = re.compile(
    r"(\w+_)?(SERVICE_HOST=.*|SERVICE_PORT(_\w+)?=.*|PORT_\d+_\w+=.*|PORT=(tcp|udp|sctp)://.*)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Resolved(Generic[Chosen]):
    """Settings, and where those came from that were given."""

    settings: Chosen
    origins: Mapping[str, Origin]


def resolve(kind: type[Chosen], given: Mapping[str, Any], config: Path | None = None) -> Resolved[Chosen]:
    """The settings of a command, of all sources.

    Args:
        given: on the command line, by name.
        config: a TOML file; None takes the one that a variable names, if any.

    Raises `FileInaccessible` for a file that cannot be read. `InvalidOption` for what is no TOML, for unknown names and
    impossible values, each with its name, where it came from, what came and what was wanted.
    """
    environment = _environment(kind)
    named = environment.pop(CONFIG, None)
    path = config if config is not None else Path(named) if named is not None else None
    sources: list[tuple[dict[str, Any], dict[str, Origin]]] = [
        ({}, {}) if path is None else _file(kind, path),
        (environment, {key: Origin(kind.variable(key)) for key in environment}),
        (dict(given), {key: Origin(f"--{key.replace('_', '-')}") for key in given}),
    ]
    values: dict[str, Any] = {}
    origins: dict[str, Origin] = {}
    for found, whence in sources:
        values |= found
        origins |= whence
    settings = _settings(kind, values, origins)
    settings.require_sense(origins)
    return Resolved(settings, origins)


def _settings(kind: type[Chosen], values: Mapping[str, Any], origins: Mapping[str, Origin]) -> Chosen:
    try:
        return kind(**values)
    except ValidationError as error:
        key = str(error.errors()[0]["loc"][0])
        raise _impossible(kind, key, values[key], origins[key]) from None


def _environment(kind: type[CommandSettings]) -> dict[str, Any]:
    """By name; a variable that is empty is not set."""
    known, prefix = {*kind.model_fields, CONFIG}, kind.variable("")
    for name, value in sorted(os.environ.items()):
        if not name.upper().startswith(prefix):
            continue
        rest = name[len(prefix) :]
        unknown = rest.lower() not in known or name != name.upper()  # pydantic would read it in small letters, too
        if unknown and not _of_kubernetes(rest, value):
            raise InvalidOption(f"the variable {name} is no setting{_nearest(kind, rest.lower(), kind.variable)}")
    found = {key: value for key, value in EnvSettingsSource(kind)().items() if not _of_kubernetes(key.upper(), value)}
    name = kind.variable(CONFIG)
    named = os.environ.get(name)
    return found | ({CONFIG: named} if named else {})


def _of_kubernetes(rest: str, value: Any) -> bool:
    """Args: rest: of the variable's name, behind the prefix."""
    return _OF_KUBERNETES.fullmatch(f"{rest}={value}") is not None


def _file(kind: type[CommandSettings], path: Path) -> tuple[dict[str, Any], dict[str, Origin]]:
    """Of a TOML file. Paths in it are beside it."""
    origin = Origin(str(path), file=True)
    try:
        found = tomllib.loads(read_small(path).decode())
    except (ValueError, RecursionError) as error:  # also bytes that are no UTF-8
        raise InvalidOption(f"{path} is no TOML: {error}") from None
    for key, value in found.items():
        if key not in kind.model_fields:
            raise InvalidOption(f"{origin.of(_shown(key))} is no setting{_nearest(kind, key, str)}")
        wanted: Any = kind.model_fields[key].annotation
        try:
            # As JSON, whose texts are paths, too, while a text is no number and 1 is not true.
            TypeAdapter(wanted).validate_json(json.dumps(value, default=repr), strict=True)
        except ValidationError:
            raise _impossible(kind, key, value, origin) from None
        if wanted == File | None:
            found[key] = path.parent / value
    origins = dict.fromkeys(found, origin)
    _settings(kind, found, origins)  # whatever wins over it
    return found, origins


def _impossible(kind: type[CommandSettings], key: str, value: Any, origin: Origin) -> InvalidOption:
    field = kind.model_fields[key]
    got = f", got {_shown(str(value) if isinstance(value, Path) else value)}" if is_shown(field) else ""
    return InvalidOption(f"{key} must be {accepts(field)}{got} ({origin.of(key)})")


def _shown(value: object) -> str:
    return repr(value)[:100]


def _nearest(kind: type[CommandSettings], key: str, write: Any) -> str:
    near = difflib.get_close_matches(key, kind.model_fields, 1)
    return f"; the nearest one is {write(near[0])}" if near else "; docs/settings.md lists them"
