"""Prints settings as TOML that can be given as `--config` again."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from consisid_runtime.errors import InvalidOption
from consisid_runtime.settings.resolve import Chosen, Resolved


def to_toml(resolved: Resolved[Chosen]) -> str:
    """A line for each setting, with where it came from; what is not set is a comment.

    Raises `InvalidOption` for a path that is no text, which TOML cannot hold.
    """
    lines = []
    for group in resolved.settings.groups:
        lines.append(f"# {group.__doc__}")
        for key in group.model_fields:
            value, origin = getattr(resolved.settings, key), resolved.origins.get(key)
            if value is None:
                instead = resolved.settings.instead.get(key, "")
                lines.append(f"# {key} is not set" + (f"; {instead} is" if instead in os.environ else ""))
            else:
                lines.append(f"{key} = {_value(key, value)}" + (f"  # {_text(origin.text)[1:-1]}" if origin else ""))
        lines.append("")
    return "\n".join(lines).rstrip()


def to_data(resolved: Resolved[Chosen]) -> dict[str, Any]:
    """The same for JSON: name → value and, where it is not the default, its origin."""
    return {
        key: {"value": os.path.abspath(value) if isinstance(value, Path) else value}
        | ({"from": resolved.origins[key].text} if key in resolved.origins else {})
        for group in resolved.settings.groups
        for key in group.model_fields
        for value in (getattr(resolved.settings, key),)
    }


def _value(key: str, value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    try:
        shown = _text(os.path.abspath(value) if isinstance(value, Path) else str(value))
        shown.encode()
    except UnicodeEncodeError:
        raise InvalidOption(f"{key} has bytes that are no text, which TOML cannot hold: {str(value)!r}") from None
    return shown


def _text(text: str) -> str:
    """A TOML string."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
